"""Floor 3: live pandas frames over immutable snapshots, and the way back from a frame to Arrow.

The facade gives a :class:`FrameSource` (its pinned snapshot and how fresh that is) and keeps one :class:`LiveFrames`:

>>> frames = LiveFrames(source)  # doctest: +SKIP
>>> frames["Flight"]  # the live frame of a class, one object for as long as somebody holds it  # doctest: +SKIP
>>> frames["Flight"].filtered("dep_delay > $0", 60)  # live too  # doctest: +SKIP
>>> frames.advance()  # every living frame to `source.snapshot`: the one function that does it  # doctest: +SKIP

``frame_to_arrow(frame, object_schema)`` makes the exact Arrow table that ``store.upsert_changeset`` takes out of a
DataFrame, Arrow table, dict or list of dicts. ``changes_for(before, after)`` compares two frames of a class.
"""

from realmframe.frames.arrow import records_to_arrow as frame_to_arrow
from realmframe.frames.cells import cell_value, coerce_cell
from realmframe.frames.difference import FrameChanges, changes_for
from realmframe.frames.live import FrameSource, FrameStatus, LiveFrame, LiveFrames, snapshot_frame

__all__ = [
    "FrameChanges",
    "FrameSource",
    "FrameStatus",
    "LiveFrame",
    "LiveFrames",
    "cell_value",
    "changes_for",
    "coerce_cell",
    "frame_to_arrow",
    "snapshot_frame",
]
