"""The instructions of a changeset on objects of one class: whole columns at once, and what is left over one by one."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from realmframe.changes import Changeset
from realmframe.errors import ApplyError
from realmframe.model import Decimal128, Property, PropertyType, Schema
from realmframe.store import types as t
from realmframe.store.edit import TableEdit
from realmframe.store.gather import key_array, key_words_of, payload_array
from realmframe.store.index import Ids, group_keys
from realmframe.store.nested import Applier
from realmframe.store.one_by_one import ObjectEdit
from realmframe.store.presence import Presence
from realmframe.store.table import Table

_CREATE, _ERASE, _UPDATE = 2, 3, 4
_NEGATIVE_ZERO: Final = -(1 << 63)
_ZERO: Final = Decimal128.from_parts(0, 0, False)


class ClassRun:
    """The instructions on objects of one class."""

    def __init__(self, schema: Schema, table: Table, cs: Changeset, rows: Ids, presence: Presence) -> None:
        self.schema, self.table, self.cs, self.rows = schema, table, cs, rows
        self.presence = presence
        self.edit = TableEdit(table)
        self.cls = table.cls
        self._zeros_end: dict[str, int] = {}

    def run(self) -> tuple[Table, Ids, dict[str, Ids], Ids]:
        """Apply them; give the new table, and the ids that were inserted, modified per field, and deleted."""
        cs, rows = self.cs, self.rows
        self._check_keys()
        secret = self.table.index.secret
        first, second = key_words_of(cs, rows, secret)
        slots = np.full(max(16, 1 << (2 * len(rows)).bit_length()), -1, np.int64)
        group, leader = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
        count = group_keys(first, second, slots, group, leader, secret)
        leader = leader[:count]
        ids = self.table.find_ids(first[leader], second[leader])
        slow = self._slow_groups(group, count)
        fast = ~slow[group]
        if fast.any():
            self._fast(rows[fast], group[fast], ids, leader, (first, second))
        if not fast.all():
            self._slow(rows[~fast], group[~fast], ids)
        return self.edit.finish()

    def _check_keys(self) -> None:
        """Check the type of every key."""
        cs, rows = self.cs, self.rows
        prop = self.cls.key_property
        kinds = np.unique(cs.key_type[rows]).tolist()
        wanted = -1 if prop is None else int(prop.type)
        for kind in kinds:
            if kind == wanted or (kind == 0 and prop is not None and prop.optional):
                continue
            raise ApplyError(f"A key of {self.cls.name} has the wrong type.")

    def _slow_groups(self, group: Ids, count: int) -> Any:
        """Tell which objects go one instruction at a time."""
        cs, rows = self.cs, self.rows
        op = cs.op[rows]
        plain = (
            (op == _CREATE) | (op == _ERASE) | ((op == _UPDATE) & (cs.path_len[rows] == 0) & (cs.value_type[rows] >= 0))
        )
        updates = np.flatnonzero(op == _UPDATE)
        for number in np.unique(cs.field[rows[updates]]).tolist():
            prop = self.cls.columns.get(cs.string(number))
            if prop is None or not t.is_scalar(prop, self.schema):
                plain[updates[cs.field[rows[updates]] == number]] = False
        plain &= cs.key_type[rows] != 0
        # Numbers that equal what is there are not written, so a negative zero needs to see what is there.
        kind, low = cs.value_type[rows], cs.value_lo[rows]
        plain &= ~((kind == PropertyType.DOUBLE) & (low == _NEGATIVE_ZERO))
        plain &= ~((kind == PropertyType.FLOAT) & (low == 0x80000000))
        slow = np.zeros(count, np.bool_)
        slow[group[~plain]] = True
        erased = np.zeros(count, np.bool_)
        erased[group[op == _ERASE]] = True
        slow |= erased & (np.bincount(group, minlength=count) > 1)
        return slow

    # ------------------------------------------------------------------ whole columns

    def _fast(self, rows: Ids, group: Ids, ids: Ids, leader: Ids, words: tuple[Any, Any]) -> None:
        cs = self.cs
        op = cs.op[rows]
        erase = op == _ERASE
        if erase.any():
            gone = ids[group[erase]]
            self.edit.erase(np.unique(gone[gone >= 0]))
            rows, group, op = rows[~erase], group[~erase], op[~erase]
        if not len(rows):
            return
        ids = ids.copy()
        self._create(rows, group, op, ids, leader, words)
        update = op == _UPDATE
        rows, target = rows[update], ids[group[update]]
        if not len(rows):
            return
        if (target < 0).any():
            missing = int(rows[np.flatnonzero(target < 0)[0]])
            raise ApplyError(f"An object of {self.cls.name} to update does not exist (instruction {missing}).")
        fields = cs.field[rows]
        order = np.argsort(fields, kind="stable")
        fields, rows, target = fields[order], rows[order], target[order]
        bounds = np.flatnonzero(np.diff(fields, prepend=-2)).tolist()
        for start, stop in zip(bounds, [*bounds[1:], len(rows)], strict=True):
            self._update_column(cs.string(int(fields[start])), rows[start:stop], target[start:stop])

    def _create(self, rows: Ids, group: Ids, op: Any, ids: Ids, leader: Ids, words: tuple[Any, Any]) -> None:
        """Create the objects that do not exist, provided that their creation comes first."""
        created = np.flatnonzero(op == _CREATE)
        new = created[ids[group[created]] < 0]
        if not len(new):
            return
        groups, where = np.unique(group[new], return_index=True)
        order = np.argsort(where, kind="stable")
        groups, where = groups[order], where[order]
        begins = new[where]
        first_use = np.full(len(ids), len(rows), np.int64)
        np.minimum.at(first_use, group, np.arange(len(group)))
        if (first_use[groups] != begins).any():
            raise ApplyError(f"An object of {self.cls.name} is updated before it is created.")
        at = rows[begins]
        leaders = leader[groups]
        keys = key_array(self.cs, at, self.cls.key_property)
        ids[groups] = self.edit.create_bulk(keys, (words[0][leaders], words[1][leaders]), at)

    def _update_column(self, name: str, rows: Ids, target: Ids) -> None:
        prop = self.cls.columns[name]
        other = np.empty(0, np.int64)
        if len(target) > 1 and not (np.diff(target) > 0).all():
            if prop.type in (PropertyType.FLOAT, PropertyType.DOUBLE):
                other = target[(self.cs.value_lo[rows] != 0) | (self.cs.value_type[rows] == 0)]
            # The last write to a row wins: the first one of the reversed order.
            _, last = np.unique(target[::-1], return_index=True)
            keep = len(target) - 1 - last
            self._check_values(np.delete(rows, keep), prop)
            rows, target = rows[keep], target[keep]
        if prop.type in (PropertyType.FLOAT, PropertyType.DOUBLE):
            rows, target = self._without_kept_zeros(name, rows, target, other)
        if len(rows):
            values = payload_array(self.cs, rows, prop, self.cls, self.schema)
            if prop.type is PropertyType.DECIMAL128 and not prop.optional:
                values = self._with_plain_zeros(name, rows, values)
            self.edit.set_bulk(name, target, values)

    def _check_values(self, rows: Ids, prop: Property) -> None:
        """Check values that are written and overwritten at once: those of a wrong type are refused all the same."""
        kinds = self.cs.value_type[rows]
        wrong = rows[(kinds != int(prop.type)) & ((kinds != 0) | (not prop.optional))]
        if len(wrong):
            payload_array(self.cs, wrong, prop, self.cls, self.schema)

    def _with_plain_zeros(self, name: str, rows: Ids, values: Any) -> Any:
        """Turn decimal -0 into 0 where the real engine does; see :meth:`zeros_end`."""
        odd = _is_zero(self.cs, rows) & (self.cs.value_hi[rows].view(np.uint64) != _ZERO.high)
        if not odd.any():
            return values
        raw = np.frombuffer(values.storage.buffers()[1], np.uint8).reshape(-1, 16).copy()
        raw[odd & (rows < self.zeros_end(name))] = np.frombuffer(_ZERO.to_bytes(), np.uint8)
        storage = pa.Array.from_buffers(pa.binary(16), len(raw), [None, pa.py_buffer(raw)])
        return pa.ExtensionArray.from_storage(values.type, storage)

    def zeros_end(self, name: str) -> int:
        """Give the row of the changeset up to which a decimal -0 is taken for 0.

        The real engine keeps a column whose decimals are all 0 without any bits, and -0 is no reason to change that;
        from the first other number on (0E+1 is one), it keeps -0 as it is written. (It decides by leaf of some 256
        objects, and never goes back; here a whole column is looked at, as it is now.)
        """
        found = self._zeros_end.get(name)
        if found is None:
            zero = pa.scalar(_ZERO.to_bytes(), pa.binary(16))
            arrays = (chunk.columns[name].array.storage for chunk in self.table.chunks)
            cs, rows, found = self.cs, self.rows, 0
            if all(pc.all(pc.equal(array, zero)).as_py() for array in arrays):
                mine = (cs.op[rows] == _UPDATE) & (cs.path_len[rows] == 0)
                mine &= cs.value_type[rows] == PropertyType.DECIMAL128
                rows = rows[mine]
                rows = rows[[cs.string(n) == name for n in cs.field[rows].tolist()]] if len(rows) else rows
                other = rows[~_is_zero(cs, rows)]
                found = int(other[0]) if len(other) else len(cs)
            self._zeros_end[name] = found
        return found

    def _without_kept_zeros(self, name: str, rows: Ids, target: Ids, other: Ids) -> tuple[Ids, Ids]:
        """Leave out zeros that would replace a negative zero: equal numbers are not written.

        Rows of ``other`` held another number, or null, in between.
        """
        zero = (self.cs.value_lo[rows] == 0) & (self.cs.value_type[rows] != 0) & (target < self.table.next_id)
        if not zero.any():
            return rows, target
        where = np.flatnonzero(zero)
        places = self.table.positions(target[where])
        old = self.table.column(name).take(places).to_numpy()
        kept = where[(old == 0) & np.signbit(old)]
        kept = kept[np.isin(target[kept], other, invert=True)] if len(other) else kept
        return np.delete(rows, kept), np.delete(target, kept)

    # ------------------------------------------------------------------ one at a time

    def _slow(self, rows: Ids, group: Ids, ids: Ids) -> None:
        objects: dict[int, ObjectEdit] = {}
        position = 0
        applier = Applier(self.schema, lambda link: self.presence.has(link, position))
        instructions = self.cs.take(rows).instructions()
        for position, number, one in zip(rows.tolist(), group.tolist(), instructions, strict=True):
            thing = objects.get(number)
            if thing is None:
                thing = objects[number] = ObjectEdit(self, int(ids[number]))
            thing.apply(one, position, applier)
        for thing in objects.values():
            thing.finish()


def _is_zero(cs: Changeset, rows: Ids) -> Any:
    """Tell which decimal values are 0 or -0, of exponent 0."""
    unsigned = cs.value_hi[rows].view(np.uint64) & np.uint64((1 << 63) - 1)
    return (unsigned == np.uint64(_ZERO.high)) & (cs.value_lo[rows] == 0)
