"""Recovery, one instruction at a time: paths are followed in the state that there is now.

See :mod:`realmframe.store.recovery` for the rules, and for what never comes here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final

import numpy as np

from realmframe.changes import Changeset
from realmframe.changes import instructions as i
from realmframe.errors import ApplyError, MergeError
from realmframe.model import (
    Collection,
    EmbeddedObject,
    Key,
    Link,
    Marker,
    ObjectSchema,
    Property,
    PropertyType,
    RealmSet,
    Schema,
)
from realmframe.store.coercion import default_value
from realmframe.store.index import Ids
from realmframe.store.list_tracker import ListTracker
from realmframe.store.nested import Applier, thaw
from realmframe.store.presence import Presence
from realmframe.store.snapshot import Snapshot
from realmframe.store.writer import insertion_instructions

#: A list: class, key, and the steps to it.
ListPath = tuple[Any, ...]
_GONE: Final = "what it belongs to does not exist on the server any more"
_DANGLING: Final = "it links to an object that does not exist on the server any more"
_NO_NUMBER: Final = "there is no number to add to on the server any more"


class Objects:
    """Objects of a state as dictionaries that can be changed, and which of them exist in the course of a changeset.

    Parameters
    ----------
    snapshot : Snapshot
    cs : Changeset
    """

    def __init__(self, snapshot: Snapshot, cs: Changeset) -> None:
        self.snapshot, self.cs = snapshot, cs
        self._loaded: dict[tuple[str, Key], dict[str, Any] | None] = {}
        self._presence = Presence(snapshot.tables, cs, np.arange(len(cs)))

    @property
    def schema(self) -> Schema:
        """The classes."""
        return self.snapshot.schema

    def get(self, cls: str, key: Key) -> dict[str, Any] | None:
        """Give an object as it is now; None if it does not exist."""
        found = self._loaded.get((cls, key), self)
        if found is not self:
            return found  # type: ignore[return-value]
        held = self.snapshot.object(cls, key)
        loaded = None if held is None else {n: thaw(v) for n, v in held.items()}
        self._loaded[cls, key] = loaded
        return loaded

    def create(self, cls: str, key: Key) -> None:
        """Make an object, unless it exists."""
        if self.get(cls, key) is None:
            schema = self.schema
            fields = {n: thaw(default_value(p, schema)) for n, p in schema[cls].properties.items()}
            primary = schema[cls].primary_key
            self._loaded[cls, key] = fields if primary is None else {**fields, primary: key}

    def erase(self, cls: str, key: Key) -> None:
        """Take an object away."""
        self._loaded[cls, key] = None

    def exists(self, link: Link, position: int) -> bool:
        """Tell whether a link's target exists at a place in the changeset."""
        return self._presence.has(link, position)


@dataclass(slots=True)
class _Place:
    """Where a path ended.

    Attributes
    ----------
    kind : str
        ``field`` (a property, of whatever kind), ``index`` of a list, ``key`` of a dictionary, or ``inside``: below an
        element that the recovery inserted, where everything is as the client wrote it.
    value : Any
        The property's value; or the list or dictionary.
    trail : ListPath
        The list's, or the one that a list at this place would have.
    path : i.Path
        With indexes translated.
    """

    kind: str
    value: Any
    trail: ListPath
    path: i.Path


class Replay:
    """Replays instructions; remembers the lists of all changesets that it saw.

    Parameters
    ----------
    local : Snapshot
        The client's own last state: lists are copied from it.
    lose : callable
        ``f(instruction, reason)``: hears what was left out.
    """

    def __init__(self, local: Snapshot, lose: Callable[[Any, str], None]) -> None:
        self._local, self._lose = local, lose
        self._lists: dict[ListPath, ListTracker] = {}
        self._objects: Objects
        self._applier: Applier
        self._position = 0

    def run(self, objects: Objects, rows: Ids) -> tuple[list[int], list[i.Instruction]]:
        """Replay rows of a changeset; give what is left of them with the positions that they had."""
        self._objects = objects
        self._applier = Applier(objects.schema, lambda link: objects.exists(link, self._position))
        rows = np.sort(rows)
        positions: list[int] = []
        found: list[i.Instruction] = []
        for row, one in zip(rows.tolist(), objects.cs.take(rows).instructions(), strict=True):
            self._position = row
            for made in self._one(one):
                self._play(made)
                positions.append(row)
                found.append(made)
        end = len(objects.cs)
        self._position = end
        for made in self._copies():
            positions.append(end)
            found.append(made)
        return positions, found

    def _one(self, one: Any) -> Iterator[i.Instruction]:
        if isinstance(one, i.CreateObject):
            yield one
            return
        if self._objects.get(one.table, one.pk) is None:
            if not isinstance(one, i.EraseObject):
                self._lose(one, _GONE)
            return
        if isinstance(one, i.EraseObject):
            yield one
            return
        place = self._walk(one)
        if place is None:
            if not self._will_be_copied(one):
                self._lose(one, _GONE)
            return
        yield from self._HANDLERS[type(one)](self, one, place)

    def _play(self, one: Any) -> None:
        if isinstance(one, i.CreateObject):
            self._objects.create(one.table, one.pk)
        elif isinstance(one, i.EraseObject):
            self._objects.erase(one.table, one.pk)
        else:
            fields = self._objects.get(one.table, one.pk)
            assert fields is not None
            try:
                self._applier.apply(one, fields, self._objects.schema[one.table])
            except ApplyError as fault:
                raise MergeError(f"A local change cannot be recovered: {fault.message}") from fault

    # ------------------------------------------------------------------ places

    def _tracker(self, trail: ListPath) -> ListTracker:
        return self._lists.setdefault(trail, ListTracker())

    def _known(self, place: _Place, index: int | None) -> int | None:
        return self._inside(place.trail, place.value, index)

    def _inside(self, trail: ListPath, items: list[Any], index: int | None) -> int | None:
        """Check a place that a tracker gave: one that does not exist has the list copied, where the SDKs would fail."""
        if index is not None and not 0 <= index < len(items):
            self._tracker(trail).give_up()
            return None
        return index

    def _will_be_copied(self, one: Any) -> bool:
        """Whether the list that an instruction leads into is copied whole, so that nothing of it is lost."""
        trail = (one.table, one.pk, one.field, *one.path)
        return any(tracker.wants_copy and known == trail[: len(known)] for known, tracker in self._lists.items())

    def _walk(self, one: Any) -> _Place | None:
        """Follow a path; None if it leads nowhere now, or into a list whose places are not known."""
        fields = self._objects.get(one.table, one.pk)
        cls: ObjectSchema = self._objects.schema[one.table]
        if one.field not in cls.properties:
            raise MergeError(f"The property {one.table}.{one.field} does not exist on the server any more.")
        assert fields is not None
        value = fields[one.field]
        trail: ListPath = (one.table, one.pk, one.field)
        steps = list(one.path)
        for n, step in enumerate(steps):
            is_last = n + 1 == len(steps)
            if isinstance(value, EmbeddedObject):
                if step not in value:
                    raise MergeError(f"{one.table}.{one.field}: the property {step!r} does not exist any more.")
            elif isinstance(value, RealmSet):
                return None
            elif isinstance(value, list):
                if not isinstance(step, int):
                    return None
                if is_last:
                    return _Place("index", value, trail, tuple(steps))
                known = self._inside(trail, value, self._tracker(trail).update(step))
                if known is None:
                    return None
                steps[n] = known
                return _Place("inside", value, trail, tuple(steps))
            elif isinstance(value, dict):
                if not isinstance(step, str):
                    return None
                if is_last:
                    return _Place("key", value, (*trail, step), tuple(steps))
                if value.get(step) is None:
                    return None
            else:
                return None
            trail = (*trail, step)
            value = value[step]
        return _Place("field", value, trail, tuple(steps))

    # ------------------------------------------------------------------ instructions

    def _update(self, one: i.Update, place: _Place) -> Iterator[i.Instruction]:
        made = replace(one, path=place.path)
        if place.kind == "key" and one.value is Marker.ERASED and one.path[-1] not in place.value:
            return
        if place.kind == "index":
            index = self._known(place, self._tracker(place.trail).update(int(one.path[-1])))
            if index is None:
                return
            made = replace(made, path=(*place.path[:-1], index), prior_size=len(place.value))
        if self._dangles(one.value):
            self._lose(one, _DANGLING)
            if place.kind == "index":
                return
            made = replace(made, value=None)
        yield made

    def _add_integer(self, one: i.AddInteger, place: _Place) -> Iterator[i.Instruction]:
        held = place.value.get(one.path[-1]) if place.kind == "key" else place.value
        if place.kind in ("field", "key") and (isinstance(held, bool) or not isinstance(held, int)):
            self._lose(one, _NO_NUMBER)
            return
        yield replace(one, path=place.path)

    def _clear(self, one: i.Clear, place: _Place) -> Iterator[i.Instruction]:
        path = place.path
        if place.kind == "index":
            index = self._known(place, self._tracker(place.trail).update(int(one.path[-1])))
            if index is None:
                return
            path = (*path[:-1], index)
        elif place.kind == "key" and one.path[-1] not in place.value:
            marker = Marker.LIST if one.collection is Collection.LIST else Marker.DICTIONARY
            yield i.Update(one.table, one.pk, one.field, path, marker)
        elif place.kind in ("field", "key") and _is_list(one, place):
            self._tracker(place.trail).clear()
        yield replace(one, path=path)

    def _insert(self, one: i.ArrayInsert, place: _Place) -> Iterator[i.Instruction]:
        if self._dangles(one.value):
            self._lose(one, _DANGLING)
            return
        if place.kind == "inside":
            yield replace(one, path=place.path)
        elif place.kind == "index":
            index = self._tracker(place.trail).insert(int(one.path[-1]), len(place.value))
            if index is not None:
                yield replace(one, path=(*place.path[:-1], index), prior_size=len(place.value))
        else:
            self._lose(one, _GONE)

    def _move(self, one: i.ArrayMove, place: _Place) -> Iterator[i.Instruction]:
        if place.kind == "inside":
            yield replace(one, path=place.path)
        elif place.kind == "index":
            both = self._tracker(place.trail).move(int(one.path[-1]), one.ndx_2)
            inside = both is not None and all(self._known(place, place_of) is not None for place_of in both)
            if both is not None and inside and both[0] != both[1]:
                path = (*place.path[:-1], both[0])
                yield replace(one, path=path, ndx_2=both[1], prior_size=len(place.value))
        else:
            self._lose(one, _GONE)

    def _erase(self, one: i.ArrayErase, place: _Place) -> Iterator[i.Instruction]:
        if place.kind == "inside":
            yield replace(one, path=place.path)
        elif place.kind == "index":
            index = self._known(place, self._tracker(place.trail).erase(int(one.path[-1])))
            if index is not None:
                yield replace(one, path=(*place.path[:-1], index), prior_size=len(place.value))
        else:
            self._lose(one, _GONE)

    def _set(self, one: Any, place: _Place) -> Iterator[i.Instruction]:
        if isinstance(one, i.SetInsert) and self._dangles(one.value):
            self._lose(one, _DANGLING)
        elif place.kind == "field" and not isinstance(place.value, RealmSet):
            self._lose(one, _GONE)
        else:
            yield replace(one, path=place.path)

    def _dangles(self, value: Any) -> bool:
        return isinstance(value, Link) and not self._objects.exists(value, self._position)

    # ------------------------------------------------------------------ lists copied whole

    def _copies(self) -> Iterator[i.Instruction]:
        for trail, tracker in self._lists.items():
            if not tracker.wants_copy or tracker.is_copied:
                continue
            cls, key, name, *steps = trail
            table, fields = self._local.tables.get(cls), self._objects.get(cls, key)
            row = -1 if table is None else int(table.find([key])[0])
            if fields is None or table is None or row < 0:
                continue
            have, wanted = _list_at(fields, [name, *steps]), _list_at(table.row(row), [name, *steps])
            if have is None or wanted is None:
                continue
            prop = self._applier.slot(fields, self._objects.schema[cls], name, tuple(steps)).prop
            element = replace(prop, collection=Collection.SINGLE)
            wanted = [v for v in wanted if not self._dangles(v)]
            for made in self._copy((cls, key, name, tuple(steps)), element, have, wanted):
                self._play(made)
                yield made
            tracker.is_copied = True

    def _copy(
        self, where: tuple[str, Key, str, i.Path], element: Property, have: list[Any], wanted: list[Any]
    ) -> Iterator[i.Instruction]:
        """Make a list hold what another one does: what stands alike at both ends is not touched."""
        cls, key, name, path = where
        head = 0
        while head < min(len(have), len(wanted)) and _same(have[head], wanted[head]):
            head += 1
        tail = 0
        while tail < min(len(have), len(wanted)) - head and _same(have[-1 - tail], wanted[-1 - tail]):
            tail += 1
        for index in range(len(have) - tail - 1, len(wanted) - tail - 1, -1):
            if index >= head:
                yield i.ArrayErase(cls, key, name, (*path, index), len(have))
        for index in range(head, len(wanted) - tail):
            item = wanted[index]
            if index < len(have) - tail:
                if _same(have[index], item):
                    continue
                if not isinstance(item, list | dict) and not isinstance(have[index], list | dict):
                    yield i.Update(cls, key, name, (*path, index), item, len(have))
                    continue
                yield i.ArrayErase(cls, key, name, (*path, index), len(have))
            yield from insertion_instructions(
                self._objects.schema, cls, key, name, element, item, (*path, index), len(have)
            )

    _HANDLERS: ClassVar[dict[type, Callable[..., Iterator[i.Instruction]]]] = {
        i.Update: _update,
        i.AddInteger: _add_integer,
        i.Clear: _clear,
        i.ArrayInsert: _insert,
        i.ArrayMove: _move,
        i.ArrayErase: _erase,
        i.SetInsert: _set,
        i.SetErase: _set,
    }


def _is_list(one: i.Clear, place: _Place) -> bool:
    held = place.value.get(one.path[-1]) if place.kind == "key" else place.value
    return one.collection is Collection.LIST or (isinstance(held, list) and not isinstance(held, RealmSet))


def _list_at(fields: Any, steps: list[Any]) -> list[Any] | None:
    value = fields
    for step in steps:
        if not isinstance(value, dict) or step not in value:
            return None
        value = value[step]
    return value if isinstance(value, list) and not isinstance(value, RealmSet) else None


def _same(left: Any, right: Any) -> bool:
    return type(left) is type(right) and bool(left == right)


__all__ = ["ListPath", "Objects", "PropertyType", "Replay"]
