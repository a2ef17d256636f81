"""Live frames: a ``pandas.DataFrame`` that moves from snapshot to snapshot, and never between.

A live frame holds the Arrow chunks of one immutable snapshot. To advance it, a new block manager is built over the
chunks of the newer snapshot and swapped in: nothing is copied, so the cost is that of the list of chunks, not of the
rows. What pandas derives from a live frame (`df[df.x > 1]`, `df.copy()`) is an ordinary frame, as ``_constructor``
says.
"""

from __future__ import annotations

import datetime as dt
import html
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, NoReturn, Protocol

import numpy as np
import pandas as pd
import pyarrow as pa

from realmframe.errors import UsageError, WriteError
from realmframe.frames.columns import to_pandas_array
from realmframe.model import ObjectSchema, Schema
from realmframe.query import Bound, parse
from realmframe.store import Snapshot, Table


@dataclass(frozen=True, slots=True)
class FrameStatus:
    """How fresh the data of a realm is.

    Attributes
    ----------
    version : int
        Version of the snapshot that the frames show.
    as_of : datetime or None
        When the server last confirmed that nothing newer existed (UTC); None if it never did.
    is_stale : bool
        Whether there may be newer data: sync is off, disconnected, or has not caught up.
    pending_writes : int
        Local transactions that the server has not acknowledged.
    synced : bool
        False for a realm without sync, which is never stale.
    """

    version: int
    as_of: dt.datetime | None = None
    is_stale: bool = False
    pending_writes: int = 0
    synced: bool = True

    @property
    def label(self) -> str:
        """One line for people."""
        if not self.synced:
            return f"version {self.version}, local"
        seen = f"as of {self.as_of:%Y-%m-%d %H:%M:%S} UTC" if self.as_of else "never in step with the server"
        parts = [f"version {self.version}", seen, "stale" if self.is_stale else "current"]
        if self.pending_writes:
            parts.append(f"{self.pending_writes} pending write{'s' if self.pending_writes > 1 else ''}")
        return ", ".join(parts)


class FrameSource(Protocol):
    """What the facade shows to its frames."""

    @property
    def snapshot(self) -> Snapshot:
        """The pinned snapshot: the one version that all frames of a realm show."""

    def status(self) -> FrameStatus:
        """How fresh it is."""


def _read_only(*_: Any, **__: Any) -> NoReturn:
    raise WriteError(
        "A live frame shows the realm and cannot be assigned to.",
        hint='Write with `with realm.write() as tx:` and tx.upsert, tx.update or `edit = tx.frame("Class")`; '
        "for a copy of your own, frame.copy().",
    )


def _guarded(indexer: Any) -> Any:
    """Give an indexer (`loc`, `iat`...) of pandas that reads and refuses to write."""
    kind = type(indexer)
    guarded = type(f"ReadOnly{kind.__name__}", (kind,), {"__setitem__": _read_only})
    return guarded(indexer.name, indexer.obj)


class FrameAccessor:
    """What realmframe itself has to say about a live frame: ``frame.realm``."""

    __slots__ = ("_frame",)

    def __init__(self, frame: LiveFrame) -> None:
        self._frame = frame

    @property
    def version(self) -> int:
        """Version of the snapshot that the frame shows."""
        return self.status.version

    @property
    def as_of(self) -> dt.datetime | None:
        """When the server last confirmed that nothing newer existed (UTC)."""
        return self.status.as_of

    @property
    def is_stale(self) -> bool:
        """Whether there may be newer data than is shown."""
        return self.status.is_stale

    @property
    def pending_writes(self) -> int:
        """Local transactions that the server has not acknowledged."""
        return self.status.pending_writes

    @property
    def status(self) -> FrameStatus:
        """All of it at once."""
        return self._frame._realm_live.source.status()

    @property
    def object_schema(self) -> ObjectSchema:
        """The class that the frame shows."""
        return self._frame._realm_live.source.snapshot.schema[self.class_name]

    @property
    def schema(self) -> Schema:
        """The schema of the realm at the version shown."""
        return self._frame._realm_live.source.snapshot.schema

    @property
    def class_name(self) -> str:
        """Name of the class that the frame shows."""
        return self._frame._realm_view.class_name

    @property
    def query(self) -> str | None:
        """The query of a filtered frame in canonical RQL, else None."""
        view = self._frame._realm_view
        return view.text

    @property
    def keys(self) -> pa.ChunkedArray:
        """The key of the object in each row; of a class without primary key nothing else tells objects apart."""
        return self._frame._realm_view.keys()

    def pin(self) -> pd.DataFrame:
        """Give an ordinary frame of what is shown now, which never changes (shares memory).

        It remembers its class in ``attrs``, so an edited copy of it can be compared by :func:`realmframe.changes_for`.
        """
        copy = self._frame.copy(deep=False)
        copy.attrs["realm_schema"] = self.schema.to_list()
        return copy

    def __repr__(self) -> str:
        query = f" where {self.query}" if self.query else ""
        return f"<{self.class_name}{query}: {self.status.label}>"


@dataclass(slots=True)
class _View:
    """What one live frame shows, and of which tables it was made."""

    class_name: str
    text: str | None = None
    bind: Callable[[Schema], Bound] | None = None
    bound: Bound | None = None
    schema: Schema | None = None
    tables: tuple[Table, ...] = ()
    rows: np.ndarray[Any, Any] | None = None

    def is_current(self, snapshot: Snapshot) -> bool:
        return bool(self.tables) and _same(self.tables, self._reads(snapshot))

    def _reads(self, snapshot: Snapshot) -> tuple[Table, ...]:
        # A query may follow links, so it depends on every table; a plain view only on its own.
        names = list(snapshot.schema) if self.bind else [self.class_name]
        return tuple(snapshot.table(n) for n in names if n in snapshot.schema and not snapshot.schema[n].embedded)

    def build(self, snapshot: Snapshot) -> pd.DataFrame:
        """Make the frame of a snapshot."""
        if self.class_name not in snapshot.schema:
            raise UsageError(f"The realm has no class {self.class_name!r} any more.")
        self.rows = None
        if self.bind is not None:
            if self.bound is None or self.schema is not snapshot.schema:
                self.bound, self.schema = self.bind(snapshot.schema), snapshot.schema
            self.rows = self.bound.rows(snapshot)
        frame = snapshot_frame(snapshot, self.class_name, self.rows)
        self.tables = self._reads(snapshot)
        return frame

    def keys(self) -> pa.ChunkedArray:
        keys = next(table for table in self.tables if table.cls.name == self.class_name).keys()
        return keys if self.rows is None else keys.take(pa.array(self.rows, pa.int64()))


def _same(left: tuple[Table, ...], right: tuple[Table, ...]) -> bool:
    return len(left) == len(right) and all(a is b for a, b in zip(left, right, strict=True))


def snapshot_frame(snapshot: Snapshot, class_name: str, rows: np.ndarray[Any, Any] | None = None) -> pd.DataFrame:
    """Show a class of a snapshot as an ordinary frame.

    Parameters
    ----------
    snapshot : Snapshot
    class_name : str
    rows : array of int64, optional
        Row positions, in the order wanted; all rows by default, then without copying.

    Returns
    -------
    pandas.DataFrame
        One ``ArrowDtype`` column per property in declared order, with a ``RangeIndex``.
    """
    table = snapshot.table(class_name)
    positions = None if rows is None else pa.array(rows, pa.int64())
    columns: dict[str, Any] = {}
    for name in table.cls.properties:
        column = table.keys() if name == table.cls.primary_key else table.column(name)
        columns[name] = to_pandas_array(column if positions is None else column.take(positions))
    count = len(table) if rows is None else len(rows)
    return pd.DataFrame(columns, index=pd.RangeIndex(count), copy=False)


class LiveFrame(pd.DataFrame):
    """A DataFrame that shows a class of a realm, or a query on it, and moves on with the realm.

    Made by ``realm["Class"]``; see :mod:`realmframe.frames`. It overrides no method of pandas with another meaning;
    what is its own is :meth:`filtered` and the accessor :attr:`realm`. Assigning into it raises.
    """

    _internal_names: ClassVar[list[str]] = [
        *pd.DataFrame._internal_names,  # type: ignore[attr-defined]
        "_realm_live",
        "_realm_view",
    ]
    _internal_names_set: ClassVar[set[str]] = set(_internal_names)

    _realm_live: LiveFrames
    _realm_view: _View

    @property
    def _constructor(self) -> Any:
        return pd.DataFrame

    @property
    def realm(self) -> FrameAccessor:
        """How fresh the frame is, its class and query, and ``pin()``."""
        return FrameAccessor(self)

    def filtered(self, query: str, *args: Any) -> LiveFrame:
        """Show what matches a query, live as well.

        Parameters
        ----------
        query : str
            Realm Query Language, such as ``"dep_delay > $0 SORT(dep_delay DESC) LIMIT(10)"``.
        *args
            Values for ``$0``, ``$1``...

        Raises
        ------
        QueryError
            If it cannot be parsed or names what the class does not have.
        """
        view = self._realm_view
        text = query if view.text is None else f"({view.text}) AND ({query})"
        return self._realm_live.filtered(view.class_name, text, *args)

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Offer the rows to other engines (DuckDB, Polars...) without copying."""
        columns = {name: _chunks(self[name].array) for name in self.columns}
        return pa.table(columns).__arrow_c_stream__(requested_schema)

    def _repr_html_(self) -> str | None:
        body: str | None = super()._repr_html_()  # type: ignore[misc]
        if body is None:
            return None
        status = self._realm_live.source.status()
        colour = "#b26a00" if status.is_stale else "#2e7d32"
        badge = (
            f'<span style="background:{colour};color:#fff;border-radius:0.6em;padding:0.1em 0.7em;font-size:85%">'
            f"{html.escape(self._realm_view.class_name)} · {html.escape(status.label)}</span>"
        )
        return f"<div>{badge}</div>{body}"

    def __reduce__(self) -> Any:
        return self.copy().__reduce__()

    # What pandas would use to change a frame in place.
    __setitem__ = _read_only
    __delitem__ = _read_only  # type: ignore[misc]
    insert = _read_only
    pop = _read_only
    update = _read_only
    _update_inplace = _read_only
    _set_axis = _read_only

    @property
    def loc(self) -> Any:
        """Label-based reading; writing raises."""
        return _guarded(super().loc)

    @property
    def iloc(self) -> Any:
        """Position-based reading; writing raises."""
        return _guarded(super().iloc)

    @property
    def at(self) -> Any:
        """Label-based reading of one value; writing raises."""
        return _guarded(super().at)

    @property
    def iat(self) -> Any:
        """Position-based reading of one value; writing raises."""
        return _guarded(super().iat)


def _chunks(array: Any) -> Any:
    return array.__arrow_array__() if hasattr(array, "__arrow_array__") else pa.array(array)


def _attributes(class_name: str, status: FrameStatus) -> dict[str, Any]:
    """Say in ``attrs`` how fresh a frame was when it last advanced; plain JSON, since pandas writes it into files."""
    return {
        "realm_class": class_name,
        "realm_version": status.version,
        "realm_as_of": status.as_of.isoformat() if status.as_of else None,
        "realm_is_stale": status.is_stale,
        "realm_pending_writes": status.pending_writes,
    }


class LiveFrames:
    """The live frames of one realm.

    Parameters
    ----------
    source : FrameSource
        Where the pinned snapshot comes from.
    """

    def __init__(self, source: FrameSource) -> None:
        self.source = source
        self._by_class: dict[str, weakref.ref[LiveFrame]] = {}
        self._all: list[weakref.ref[LiveFrame]] = []

    def __getitem__(self, class_name: str) -> LiveFrame:
        known = self._by_class.get(class_name)
        frame = known() if known is not None else None
        if frame is None:
            self._check_class(class_name)
            frame = self._make(_View(class_name))
            self._by_class[class_name] = weakref.ref(frame)
        return frame

    def __iter__(self) -> Iterator[str]:
        return (name for name, cls in self.source.snapshot.schema.items() if not cls.embedded)

    def filtered(self, class_name: str, query: str, *args: Any) -> LiveFrame:
        """Make a live frame of what matches a query; see :meth:`LiveFrame.filtered`."""
        self._check_class(class_name)
        parsed = parse(query, *args)
        view = _View(class_name, parsed.text, lambda schema: parsed.bind(schema, class_name))
        return self._make(view)

    def advance(self) -> int:
        """Move every living frame to the source's snapshot; return how many changed."""
        snapshot, moved, living = self.source.snapshot, 0, []
        status = self.source.status() if self._all else None
        for reference in self._all:
            frame = reference()
            if frame is None:
                continue
            living.append(reference)
            view = frame._realm_view
            if view.class_name in snapshot.schema and not view.is_current(snapshot):
                frame._mgr = view.build(snapshot)._mgr  # type: ignore[attr-defined]
                moved += 1
            assert status is not None
            frame.attrs.update(_attributes(view.class_name, status))
        self._all = living
        return moved

    def _make(self, view: _View) -> LiveFrame:
        frame = LiveFrame(view.build(self.source.snapshot), copy=False)
        object.__setattr__(frame, "_realm_live", self)
        object.__setattr__(frame, "_realm_view", view)
        frame.attrs.update(_attributes(view.class_name, self.source.status()))
        self._all.append(weakref.ref(frame))
        return frame

    def _check_class(self, class_name: str) -> None:
        classes = list(self)
        if class_name not in classes:
            raise UsageError(
                f"The realm has no class {class_name!r} to show as a frame.",
                hint=f"It has {', '.join(classes) or 'no classes yet'}.",
            )
