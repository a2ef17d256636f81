"""A side that stays while changesets of the other side come one after another: a log, and a backlog that meets it.

Everything that :func:`~realmframe.merge.transform` would find out anew for each of them is kept: what each row is
about (``columns.py``), the instructions that have met something before (``held.py``), and long lists as the rows of the
compiled loop (``lanes.py``). The outcome is that of ``transform`` to the bit; what was changed goes back into columns
as late as can be.

A meeting changes nothing here until it is accepted, so one that fails, or whose outcome cannot be applied, leaves no
trace.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from operator import attrgetter, itemgetter
from typing import Any

import numpy as np

from realmframe.changes import Changeset
from realmframe.changes.columns import IS_SCHEMA
from realmframe.merge import lanes
from realmframe.merge.columns import NO_ROW, Columns
from realmframe.merge.held import Held
from realmframe.merge.join import ERASE_OBJECT, Rows, split_rows
from realmframe.merge.lanes import Lane, field_of
from realmframe.merge.lists import GONE
from realmframe.merge.splice import same_fields
from realmframe.merge.transform import Timed, meet, nodes_of, outputs, transform
from realmframe.merge.work import Node, Storage

#: Bytes of what is kept of a changeset, of each of its rows, and of each of its instructions that has met something.
_BYTES, _ROW_BYTES, _NODE_BYTES = 4096, 96, 900


@dataclass(slots=True, eq=False)
class Meeting:
    """What came of the changesets that met a :class:`Window`.

    Attributes
    ----------
    outputs : list of Changeset
        What they have become. A changeset that does not change is the very same object.
    """

    outputs: list[Changeset]
    _window: Window | None = None
    _twins: list[Node] = field(default_factory=list)
    _lanes: dict[int, tuple[Lane, Any]] = field(default_factory=dict)
    _others: list[Changeset] | None = None

    def accept(self) -> None:
        """Let the other side be what it became; no other meeting may have been accepted since."""
        window, self._window = self._window, None
        if window is None:
            return
        if self._others is not None:
            window.replace(self._others)
        else:
            window.change(self._twins, self._lanes)


class Window:
    """The side that stays; at first nothing.

    Changesets are added at its end, and forgotten at its beginning, by keys that grow.
    """

    def __init__(self) -> None:
        self._held: list[Held] = []
        self._columns = Columns()
        #: Lists, by the hash of what they are.
        self._lanes: dict[int, Lane] = {}
        self._unsettled: dict[Held, None] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._held)

    @property
    def nbytes(self) -> int:
        """About how many bytes it takes."""
        return self._bytes

    @property
    def is_settled(self) -> bool:
        """Whether :meth:`settle` has nothing to give."""
        return not self._unsettled and not any(lane.untold.any() for lane in self._lanes.values())

    def append(self, key: int, timed: Timed) -> None:
        """Add a changeset to the end."""
        c = timed.changeset
        size = _BYTES + len(c.heap) + _ROW_BYTES * len(c)
        self._held.append(Held(key, timed, self._columns.end, np.arange(len(c)), Storage(c), size))
        self._columns.append(Rows.of([c]))
        self._bytes += size

    def forget(self, through: int) -> None:
        """Forget changesets with keys up to one."""
        count = 0
        while count < len(self._held) and self._held[count].key <= through:
            self._bytes -= self._held[count].size
            self._unsettled.pop(self._held[count], None)
            count += 1
        end = self._held[count].first if count < len(self._held) else self._columns.end
        self._columns.forget(end)
        del self._held[:count]
        for mark, lane in list(self._lanes.items()):
            gone = int(np.searchsorted(lane.at, end))
            if gone == len(lane.at):
                del self._lanes[mark]
            elif gone:
                self._lanes[mark] = lane.without(gone)

    def settle(self, through: int | None = None) -> Iterator[tuple[int, Changeset]]:
        """Give the key and present form of each changeset that changed since it was given the last time.

        Parameters
        ----------
        through : int, optional
            Only those with keys up to this one.
        """
        for lane in self._lanes.values():
            if lane.untold.any():
                self._write_back(lane)
        wanted = [h for h in self._unsettled if through is None or h.key <= through]
        for held in wanted:
            if held.moved:
                held.splice()
            del self._unsettled[held]
            yield held.key, held.timed.changeset

    def tell(self) -> Iterator[tuple[int, Callable[[], Changeset]]]:
        """Give what :meth:`settle` gives, each form as a function: most are never asked for, since another follows."""
        for lane in self._lanes.values():
            numbers = np.flatnonzero(lane.untold)
            for number, held in zip(numbers.tolist(), self._owners(lane.at[numbers]), strict=True):
                if len(held.places) == 1 and held not in self._unsettled:
                    lane.untold[number] = False
                    yield held.key, lane.form(held.timed.changeset, number)
        for key, changeset in self.settle():
            yield key, partial(_same, changeset)

    # ------------------------------------------------------------------ meeting

    def meet(self, side: Sequence[Timed]) -> Meeting:
        """Merge changesets of the other side with this one, as ``transform(side, these)`` does.

        Raises
        ------
        MergeError
            If the two sides contradict each other.
        """
        changesets = [t.changeset for t in side]
        unchanged = Meeting(changesets)
        if not len(self._columns) or not any(len(c) for c in changesets):
            return unchanged
        left, right = Rows.of(changesets), self._columns.rows()
        marks = self._columns.joined(left)
        if marks is None:
            return unchanged
        here = marks[1] & (right.op != NO_ROW)
        if not here.any():
            return unchanged
        ops = left.op[marks[0]], right.op[here]
        if any(IS_SCHEMA[op].any() for op in ops):
            return self._meet_whole(side)
        mine = nodes_of(side, split_rows(marks[0], changesets))
        majors, met = [n for nodes in mine for n in nodes], dict[int, tuple[Lane, Any]]()
        if len(side) == 1 and not any((op == ERASE_OBJECT).any() for op in ops):
            majors, met = self._meet_lanes(majors, left.of_field[marks[0]], right.of_field, here)
        self._leave_lanes(here)
        twins = [node.twin() for node in self._find(np.flatnonzero(here))]
        meet(majors, twins)
        return Meeting(outputs(side, mine), self, twins, met)

    def _meet_whole(self, side: Sequence[Timed]) -> Meeting:
        """Merge where the schema is concerned, which is rare: instructions may be put in front of others then."""
        self._leave_lanes(np.ones(len(self._columns), np.bool_))
        for held in self._held:
            if held.moved:
                held.splice()
        made, others = transform(side, [h.timed for h in self._held])
        return Meeting(made, self, _others=others)

    def _meet_lanes(
        self, majors: list[Node], marks: Any, of_field: Any, here: Any
    ) -> tuple[list[Node], dict[int, tuple[Lane, Any]]]:
        """Let instructions of one changeset meet on long lists; give those left, and what came of the lists.

        The rows of these lists are taken out of ``here``.
        """
        met: dict[int, tuple[Lane, Any]] = {}
        numbers, marked = marks.tolist(), np.flatnonzero(here)
        for mark in dict.fromkeys(numbers):
            at = marked[of_field[marked] == np.uint64(mark)]
            if len(at) < lanes.FEW:
                continue
            mine = [node for node, number in zip(majors, numbers, strict=True) if number == mark]
            lane = self._lane(mark, at)
            rows = lane.meet(mine, mine[0].stamp) if lane is not None and field_of(mine) == lane.field else None
            if lane is not None and rows is not None:
                met[mark] = lane, rows
                here[at] = False
        return [node for node, number in zip(majors, numbers, strict=True) if number not in met], met

    def _lane(self, mark: int, at: Any) -> Lane | None:
        """Give the lane of some rows, if they can have one."""
        places, lane = at + self._columns.begin, self._lanes.get(mark)
        if lane is not None:
            known = len(lane.at)
            if np.array_equal(lane.at, places):
                return lane
            more = Lane.of(places[known:], self._find(at[known:])) if np.array_equal(lane.at, places[:known]) else None
            if more is not None and more.field == lane.field:
                self._lanes[mark] = lane.grown(more)
                return self._lanes[mark]
            self._write_back(self._lanes.pop(mark))
        made = Lane.of(places, self._find(at))
        if made is not None:
            self._lanes[mark] = made
        return made

    def _leave_lanes(self, here: Any) -> None:
        """Write lists back of which some rows meet something one by one."""
        for mark, lane in list(self._lanes.items()):
            if here[lane.at - self._columns.begin].any():
                self._write_back(self._lanes.pop(mark))

    def _write_back(self, lane: Lane) -> None:
        for held in self._owners(lane.at[lane.untold]):
            self._unsettled[held] = None
        lane.untold[:] = False
        self.change(lane.write_back(), {}, is_told=True)

    def _owners(self, places: Any) -> list[Held]:
        """Give the changesets that some places belong to."""
        firsts = np.fromiter(map(attrgetter("first"), self._held), np.int64, len(self._held))
        # Of those that begin at one place all but the last are empty.
        return [self._held[n] for n in (np.searchsorted(firsts, places, "right") - 1).tolist()]

    def _find(self, at: Any) -> list[Node]:
        """Give the nodes of some rows, in order."""
        places, found = at + self._columns.begin, list[Node]()
        for held, group in groupby(zip(self._owners(places), places.tolist(), strict=True), key=itemgetter(0)):
            known = len(held.nodes)
            found += held.find([place - held.first for _, place in group])
            grown = _NODE_BYTES * (len(held.nodes) - known)
            held.size += grown
            self._bytes += grown
        return found

    # ------------------------------------------------------------------ what came of a meeting

    def change(self, twins: Sequence[Node], met: dict[int, tuple[Lane, Any]], *, is_told: bool = False) -> None:
        """Let instructions and lists be what they became; ``is_told`` if whom that concerns is known already."""
        dropped: dict[Held, list[Node]] = {}
        for held, twin in zip(self._owners([twin.order[0] for twin in twins]), twins, strict=True):
            place = twin.order[0] - held.first
            if twin.discarded:
                dropped.setdefault(held, []).append(held.nodes.pop(place))
                held.moved.discard(place)
                self._columns.rows().op[twin.order[0] - self._columns.begin] = NO_ROW
            elif twin.changed and not same_fields(held.nodes[place].one, twin.one):
                held.nodes[place] = twin
                held.moved.add(place)
                if not is_told:
                    self._unsettled[held] = None
        for held, nodes in dropped.items():
            for node in nodes:
                node.discard()
            held.splice(nodes)
            self._unsettled[held] = None
        for mark, (lane, rows) in met.items():
            lane.take(rows)
            if rows[GONE].any():
                self._write_back(self._lanes.pop(mark))

    def replace(self, others: Sequence[Changeset]) -> None:
        """Begin anew with what the changesets became."""
        before, unsettled = self._held, self._unsettled
        if all(new is held.timed.changeset for held, new in zip(before, others, strict=True)):
            return
        self._held, self._columns, self._unsettled, self._bytes = [], Columns(), {}, 0
        for held, new in zip(before, others, strict=True):
            self.append(held.key, Timed(new, held.timed.timestamp, held.timed.file_ident))
            if held in unsettled or new is not held.timed.changeset:
                self._unsettled[self._held[-1]] = None


def _same(changeset: Changeset) -> Changeset:
    return changeset
