"""Objects that are changed instruction by instruction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from realmframe.changes import instructions as i
from realmframe.errors import ApplyError
from realmframe.model import Collection, Decimal128, PropertyType
from realmframe.store.coercion import default_value
from realmframe.store.nested import Applier, check_key, thaw

if TYPE_CHECKING:
    from realmframe.store.class_run import ClassRun

_ZERO: Final = Decimal128.from_parts(0, 0, False)


class ObjectEdit:
    """One object that is changed instruction by instruction."""

    def __init__(self, run: ClassRun, row_id: int) -> None:
        self._run, self._id = run, row_id
        self._position = int(run.table.positions(np.array([row_id]))[0]) if row_id >= 0 else -1
        self._fields: _Fields | None = _Fields(run, self._position) if row_id >= 0 else None

    def apply(self, one: Any, position: int, applier: Applier) -> None:
        """Apply an instruction, whose row in the changeset is its position."""
        if isinstance(one, i.CreateObject):
            if self._fields is None:
                self._id = self._run.edit.create_one(one.pk, position)
                self._fields = _Fields(self._run, -1)
        elif isinstance(one, i.EraseObject):
            if self._fields is not None:
                self._run.edit.erase(np.array([self._id], np.int64))
                self._fields = None
        elif self._fields is None:
            raise ApplyError(f"Object {one.pk!r} of {one.table} does not exist.")
        else:
            if one.field == self._run.cls.primary_key:
                self._rekey(one)
                return
            if isinstance(one, i.Update) and isinstance(one.value, Decimal128) and not one.path:
                one = self._with_plain_zero(one, position)
            applier.apply(one, self._fields, self._run.cls)

    def _with_plain_zero(self, one: i.Update, position: int) -> i.Update:
        """Take a decimal -0 for 0 where the real engine does; see :meth:`ClassRun.zeros_end`."""
        prop, value = self._run.cls.columns.get(one.field), one.value
        plain = prop is not None and prop.type is PropertyType.DECIMAL128 and not prop.optional
        if not plain or prop is None or prop.collection is not Collection.SINGLE:
            return one
        assert isinstance(value, Decimal128)
        if (
            not value.negative
            or value.high & ((1 << 63) - 1) != _ZERO.high
            or value.low
            or position >= self._run.zeros_end(one.field)
        ):
            return one
        return i.Update(one.table, one.pk, one.field, one.path, _ZERO)

    def _rekey(self, one: Any) -> None:
        """Write the primary key, as the real engine does when told to (clients never tell it)."""
        if not isinstance(one, i.Update) or one.path:
            raise ApplyError(f"{one.table}.{one.field} is the primary key and holds nothing else.")
        key: Any = one.value
        check_key(key, self._run.cls)
        self._run.edit.rekey(self._id, key)

    def finish(self) -> None:
        """Write what was touched."""
        if self._fields is None:
            return
        for name, value in self._fields.items():
            self._run.edit.set_one(name, self._id, value)


class _Fields(dict[str, Any]):
    """The fields of an object, read when they are first needed; all that it holds was touched."""

    def __init__(self, run: ClassRun, position: int) -> None:
        super().__init__()
        self._run, self._position = run, position

    def __missing__(self, name: str) -> Any:
        prop = self._run.cls.columns[name]
        if self._position < 0:
            value = default_value(prop, self._run.schema)
        else:
            value = self._run.table.values(name, np.array([self._position]))[0]
        value = thaw(value)
        self[name] = value
        return value
