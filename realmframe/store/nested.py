"""One instruction at a time: what is nested, and whatever else bulk application leaves over.

A :class:`Slot` is a place that holds a value: a field, a list element, a dictionary value. Paths lead from slot to
slot; the rules of application are those of the real engine (see the notes of the golden vectors).
"""

from __future__ import annotations

import copy
import decimal
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from realmframe.changes import instructions as i
from realmframe.errors import ApplyError
from realmframe.model import (
    ClassKind,
    Collection,
    Decimal128,
    EmbeddedObject,
    Key,
    Link,
    Marker,
    ObjectId,
    ObjectSchema,
    Property,
    PropertyType,
    RealmSet,
    Schema,
    Timestamp,
    decimal_of_float,
)
from realmframe.store.coercion import default_value

#: Steps of a path. MongoDB, which App Services store to, nests documents no deeper; the real engine knows no limit, but
#: whoever could nest without one could exhaust the stack of everybody who reads the value.
MAX_DEPTH: Final = 100

_TYPE_OF: Final[dict[type, PropertyType]] = {
    int: PropertyType.INT,
    bool: PropertyType.BOOL,
    str: PropertyType.STRING,
    bytes: PropertyType.DATA,
    Timestamp: PropertyType.DATE,
    np.float32: PropertyType.FLOAT,
    float: PropertyType.DOUBLE,
    Decimal128: PropertyType.DECIMAL128,
    ObjectId: PropertyType.OBJECT_ID,
    uuid.UUID: PropertyType.UUID,
    Link: PropertyType.OBJECT,
}
_NUMBERS: Final = (int, float, np.float32, Decimal128)
_FLOATING: Final = (PropertyType.FLOAT, PropertyType.DOUBLE)
#: Types of which values can be equal and yet differ.
_INEXACT: Final = (float, np.float32, Decimal128)
_EMPTY: Final[dict[Collection, Callable[[], Any]]] = {
    Collection.LIST: list,
    Collection.DICTIONARY: dict,
    Collection.SET: RealmSet,
}


@dataclass(slots=True)
class Slot:
    """A place in an object.

    Attributes
    ----------
    holder : dict or list
        What holds the value.
    step : str or int
        Where in it.
    prop : Property
        Type of the value; its collection is SINGLE for elements of collections.
    """

    holder: Any
    step: Any
    prop: Property

    @property
    def value(self) -> Any:
        """What is there."""
        try:
            return self.holder[self.step]
        except (KeyError, IndexError):
            raise ApplyError(f"{self.prop.name}: there is nothing at {self.step!r}.") from None

    @property
    def is_element(self) -> bool:
        """Whether it is an element of a list."""
        return isinstance(self.holder, list)

    @property
    def is_collection(self) -> bool:
        """Whether the property itself is a collection."""
        return self.prop.collection is not Collection.SINGLE


class Applier:
    """Applies instructions to objects held as dictionaries of model values.

    Parameters
    ----------
    schema : Schema
    exists : callable
        ``f(link)``: whether its object exists at the instruction that is being applied.
    """

    def __init__(self, schema: Schema, exists: Callable[[Link], bool]) -> None:
        self._schema, self._exists = schema, exists

    # ------------------------------------------------------------------ places

    def slot(self, fields: dict[str, Any], cls: ObjectSchema, name: str, path: i.Path) -> Slot:
        """Follow a path to its place, which need not hold anything yet."""
        prop = cls.properties.get(name)
        if prop is None:
            raise ApplyError(f"{cls.name} has no property {name!r}.")
        place = Slot(fields, name, prop)
        for step in path:
            place = self._step(place, step)
        return place

    def _step(self, place: Slot, step: int | str) -> Slot:
        value, prop = place.value, place.prop
        element = replace(prop, collection=Collection.SINGLE)
        if isinstance(value, EmbeddedObject):
            inner = self._schema[prop.target or ""].properties.get(str(step))
            if inner is None or not isinstance(step, str):
                raise ApplyError(f"{prop.target} has no property {step!r}.")
            return Slot(value, step, inner)
        if isinstance(value, RealmSet):
            raise ApplyError(f"{prop.name}: a path cannot lead into a set.")
        if isinstance(value, list) and isinstance(step, int):
            return Slot(value, step, element)
        if isinstance(value, dict) and isinstance(step, str):
            if "." in step or step.startswith("$"):
                raise ApplyError(f"{prop.name}: {step!r} cannot be a key of a dictionary.")
            return Slot(value, step, element)
        raise ApplyError(f"{prop.name}: the path cannot go on at {step!r}.")

    def _new_object(self, prop: Property) -> EmbeddedObject:
        target = self._schema.get(prop.target or "")
        if prop.type is not PropertyType.OBJECT or target is None or not target.embedded:
            raise ApplyError(f"{prop.name} holds no embedded objects.")
        return EmbeddedObject({n: default_value(p, self._schema) for n, p in target.properties.items()})

    def _checked(self, value: Any, prop: Property) -> Any:
        """Check a value against a type; give what is to be stored."""
        if value is None:
            if not (prop.optional or prop.type is PropertyType.MIXED):
                raise ApplyError(f"{prop.name} cannot be null.")
            return None
        if isinstance(value, Marker):
            return self._marked(value, prop)
        kind = _TYPE_OF[type(value)]
        if prop.type is PropertyType.MIXED:
            if kind is PropertyType.OBJECT:
                self._check_link(value, prop)
            return value
        if kind is not prop.type:
            raise ApplyError(f"{prop.name} ({prop.word}) cannot hold a value of type {kind.name.lower()}.")
        if kind is PropertyType.OBJECT:
            if value.table != prop.target:
                raise ApplyError(f"{prop.name} links to {prop.target}, not to {value.table}.")
            self._check_link(value, prop)
        return value

    def _check_link(self, value: Link, prop: Property) -> None:
        target = self._schema.get(value.table)
        if target is None or target.kind is not ClassKind.TOPLEVEL:
            raise ApplyError(f"{prop.name}: links cannot go to {value.table!r}.")
        check_key(value.key, target)

    def _marked(self, value: Marker, prop: Property) -> Any:
        if value is Marker.OBJECT_VALUE:
            return self._new_object(prop)
        if prop.type is PropertyType.MIXED and value in (Marker.LIST, Marker.DICTIONARY):
            return [] if value is Marker.LIST else {}
        raise ApplyError(f"{prop.name} ({prop.word}) cannot hold {value.value}.")

    # ------------------------------------------------------------------ instructions

    def apply(self, one: i.Instruction, fields: dict[str, Any], cls: ObjectSchema) -> None:
        """Apply an instruction with a path to an object's fields, which are changed in place."""
        path: i.Path = getattr(one, "path", ())
        if len(path) > MAX_DEPTH:
            raise ApplyError(f"{cls.name}: a path of {len(path)} steps; values nest at most {MAX_DEPTH} deep.")
        _HANDLERS[type(one)](self, one, fields, cls)

    def update(self, one: i.Update, fields: dict[str, Any], cls: ObjectSchema) -> None:
        """Set a value."""
        place = self.slot(fields, cls, one.field, one.path)
        if place.is_collection:
            raise ApplyError(f"{one.field} is a collection and cannot be set as a whole.")
        value = one.value
        if value is Marker.ERASED:
            if not isinstance(place.holder, dict) or isinstance(place.holder, EmbeddedObject) or not one.path:
                raise ApplyError(f"{one.field}: only keys of dictionaries can be erased.")
            place.holder.pop(place.step, None)
            return
        if place.is_element and not 0 <= place.step < len(place.holder):
            raise ApplyError(f"{one.field}: index {place.step} is out of range.")
        self._set(place, value, in_dictionary=bool(one.path) and isinstance(place.holder, dict))

    def _set(self, place: Slot, value: Any, *, in_dictionary: bool) -> None:
        keyed = in_dictionary and not isinstance(place.holder, EmbeddedObject)
        if value is Marker.OBJECT_VALUE:
            # Elsewhere than at a key it asks for nothing where there is something, whatever that is.
            if keyed or (not place.is_element and place.value is None):
                place.holder[place.step] = self._new_object(place.prop)
            return
        if isinstance(value, Marker):
            kind = self._marked(value, place.prop)
            held = None if keyed and place.step not in place.holder else place.value
            if type(held) is not type(kind):
                place.holder[place.step] = kind
            return
        if value is None and place.is_element and place.prop.type is PropertyType.OBJECT:
            target = self._schema.get(place.prop.target or "")
            if target is None or target.embedded:
                raise ApplyError(f"{place.prop.name}: an element cannot be null.")
        checked = self._checked(value, place.prop)
        if not self._writes_nothing(checked, place, keyed=keyed):
            place.holder[place.step] = checked

    def _writes_nothing(self, new: Any, place: Slot, *, keyed: bool) -> bool:
        """Tell whether the real engine skips a write: of what equals the value of its type that is there.

        So -0.0 does not replace 0.0, nor a decimal 1.00 the 1.0; but a property of one decimal is always written. And
        null does not replace a link to nothing in a list of Mixed, which it sees as null.
        """
        if new is None and place.is_element and place.prop.type is PropertyType.MIXED:
            held = place.value
            return isinstance(held, Link) and not self._exists(held)
        if type(new) not in _INEXACT or (keyed and place.step not in place.holder):
            return False
        if place.prop.type is PropertyType.DECIMAL128 and not keyed and not place.is_element:
            return False
        held = place.value
        return type(held) is type(new) and _equal(held, new)

    def add_integer(self, one: i.AddInteger, fields: dict[str, Any], cls: ObjectSchema) -> None:
        """Add to an integer, wrapping at 64 bits."""
        place = self.slot(fields, cls, one.field, one.path)
        keyed = bool(one.path) and not isinstance(place.holder, EmbeddedObject)
        if keyed or place.is_collection:
            raise ApplyError(f"{one.field}: numbers in lists and dictionaries cannot be added to.")
        held = place.value
        if held is None:
            return
        if isinstance(held, bool) or not isinstance(held, int):
            raise ApplyError(f"{one.field} holds no integer to add to.")
        total = (held + one.value + (1 << 63)) % (1 << 64) - (1 << 63)
        place.holder[place.step] = total

    def _list(self, one: Any, fields: dict[str, Any], cls: ObjectSchema) -> tuple[list[Any], int, Property]:
        place = self.slot(fields, cls, one.field, one.path[:-1])
        items = place.value
        if not isinstance(items, list) or isinstance(items, RealmSet):
            raise ApplyError(f"{one.field}: there is no list at this place.")
        if one.prior_size != len(items):
            raise ApplyError(f"{one.field}: the list has {len(items)} elements, not {one.prior_size}.")
        return items, one.path[-1], replace(place.prop, collection=Collection.SINGLE)

    def array_insert(self, one: i.ArrayInsert, fields: dict[str, Any], cls: ObjectSchema) -> None:
        """Insert into a list."""
        items, index, element = self._list(one, fields, cls)
        if not 0 <= index <= len(items):
            raise ApplyError(f"{one.field}: index {index} is out of range.")
        if one.value is None and element.type is PropertyType.OBJECT:
            raise ApplyError(f"{one.field}: an element cannot be null.")
        items.insert(index, _stored(self._checked(one.value, element), items, element))

    def array_move(self, one: i.ArrayMove, fields: dict[str, Any], cls: ObjectSchema) -> None:
        """Move an element of a list."""
        items, index, _ = self._list(one, fields, cls)
        if not (0 <= index < len(items) and 0 <= one.ndx_2 < len(items)) or index == one.ndx_2:
            raise ApplyError(f"{one.field}: element {index} cannot be moved to {one.ndx_2}.")
        items.insert(one.ndx_2, items.pop(index))

    def array_erase(self, one: i.ArrayErase, fields: dict[str, Any], cls: ObjectSchema) -> None:
        """Remove an element of a list."""
        items, index, _ = self._list(one, fields, cls)
        if not 0 <= index < len(items):
            raise ApplyError(f"{one.field}: index {index} is out of range.")
        del items[index]

    def clear(self, one: i.Clear, fields: dict[str, Any], cls: ObjectSchema) -> None:
        """Empty a collection."""
        place = self.slot(fields, cls, one.field, one.path)
        wanted = one.collection
        if place.is_collection:
            if wanted not in (Collection.SINGLE, place.prop.collection):
                raise ApplyError(f"{one.field} is no {wanted.name.lower()}.")
            place.holder[place.step] = _EMPTY[place.prop.collection]()
            return
        _ = place.value
        if place.prop.type is not PropertyType.MIXED or wanted not in (Collection.LIST, Collection.DICTIONARY):
            raise ApplyError(f"{one.field}: there is nothing to clear as {wanted.name.lower()}.")
        place.holder[place.step] = _EMPTY[wanted]()

    def _set_at(self, one: Any, fields: dict[str, Any], cls: ObjectSchema) -> tuple[RealmSet, Property]:
        place = self.slot(fields, cls, one.field, one.path)
        items = place.value
        if not isinstance(items, RealmSet):
            raise ApplyError(f"{one.field}: there is no set at this place.")
        return items, replace(place.prop, collection=Collection.SINGLE)

    def set_insert(self, one: i.SetInsert, fields: dict[str, Any], cls: ObjectSchema) -> None:
        """Add to a set."""
        items, element = self._set_at(one, fields, cls)
        if isinstance(one.value, Marker) or (one.value is None and element.type is PropertyType.OBJECT):
            raise ApplyError(f"{one.field}: a set cannot hold this.")
        value = _stored(self._checked(one.value, element), items, element)
        if element.type in _FLOATING:
            place, found = _searched(items, value)
            if not found:
                items.insert(place, value)
        elif not any(same_element(value, item) for item in items):
            items.append(value)

    def set_erase(self, one: i.SetErase, fields: dict[str, Any], cls: ObjectSchema) -> None:
        """Remove from a set."""
        items, element = self._set_at(one, fields, cls)
        if isinstance(one.value, Marker) or (one.value is None and element.type is not PropertyType.MIXED):
            raise ApplyError(f"{one.field}: a set cannot hold this.")
        value = self._checked(one.value, element)
        if element.type in _FLOATING:
            place, found = _searched(items, value)
            if found:
                del items[place]
        else:
            items[:] = [item for item in items if not same_element(value, item)]


def _stored(value: Any, items: list[Any], element: Property) -> Any:
    """Turn a decimal -0 into 0 where the real engine does: as long as a list or set holds nothing but zeros."""
    if element.type is PropertyType.DECIMAL128 and _is_zero(value) and all(map(_is_zero, items)):
        return Decimal128.from_parts(0, 0, False)
    return value


def _is_zero(value: Any) -> bool:
    return isinstance(value, Decimal128) and not value.coefficient and not value.exponent


def is_lost(value: Any, element: Property) -> bool:
    """Tell whether a set cannot find a value again: of floating-point numbers, not-a-number equals nothing there."""
    return element.type in _FLOATING and value is not None and bool(value != value)


def _searched(items: list[Any], value: Any) -> tuple[int, bool]:
    """Search a set of floating-point numbers as the real engine does: where a value belongs, and whether it is there.

    The engine keeps the set in order, null first, and halves it. Not-a-number is below nothing and equals nothing: it
    goes before all numbers every time that it comes, and from then on hides some of them from the search. Until then
    the order makes no difference, and they are kept as they came.
    """
    if not any(item != item for item in items):
        if value == value:
            place = next((n for n, item in enumerate(items) if item == value), len(items))
            return place, place < len(items)
        items.sort(key=_order)
    low, count = 0, len(items)
    while count:
        half = count // 2
        if _below(items[low + half], value):
            low, count = low + half + 1, count - half - 1
        else:
            count = half
    return low, low < len(items) and bool(items[low] == value)


def _order(value: Any) -> tuple[bool, Any]:
    return (False, 0.0) if value is None else (True, value)


def _below(left: Any, right: Any) -> bool:
    if left is None or right is None:
        return left is None and right is not None
    return bool(left < right)


_HANDLERS: Final[dict[type, Callable[..., None]]] = {
    i.Update: Applier.update,
    i.AddInteger: Applier.add_integer,
    i.ArrayInsert: Applier.array_insert,
    i.ArrayMove: Applier.array_move,
    i.ArrayErase: Applier.array_erase,
    i.Clear: Applier.clear,
    i.SetInsert: Applier.set_insert,
    i.SetErase: Applier.set_erase,
}


def same_element(left: Any, right: Any) -> bool:
    """Whether two values are one element of a set: numbers by their amount, everything else by type and value."""
    if isinstance(left, bool) or isinstance(right, bool):
        return type(left) is type(right) and bool(left == right)
    if isinstance(left, _NUMBERS) and isinstance(right, _NUMBERS):
        return _equal(left, right)
    return type(left) is type(right) and bool(left == right)


def _equal(left: Any, right: Any) -> bool:
    """Compare two numbers of any types as the real engine does; not-a-number equals itself here."""
    if isinstance(left, Decimal128) and isinstance(right, Decimal128) and left.is_nan and right.is_nan:
        return left == right  # It has a sign, and other bits that count.
    if isinstance(left, Decimal128) or isinstance(right, Decimal128):
        left, right = _decimal(left), _decimal(right)
        return bool(left == right) or (left.is_nan() and right.is_nan())
    # Not as numpy does it: beside its 32-bit numbers, Python's would be rounded.
    left, right = (float(n) if isinstance(n, np.float32) else n for n in (left, right))
    return bool(left == right) or (left != left and right != right)


def _decimal(number: Any) -> decimal.Decimal:
    if isinstance(number, Decimal128):
        return number.to_decimal()
    if isinstance(number, int):
        return decimal.Decimal(number)
    return decimal_of_float(float(number), single=isinstance(number, np.float32))


def check_key(key: Key, cls: ObjectSchema) -> None:
    """Check that a key is of its class's type.

    Raises
    ------
    ApplyError
    """
    prop = cls.key_property
    if prop is None:
        if type(key).__name__ != "GlobalKey":
            raise ApplyError(f"{cls.name} has no primary key, so {key!r} is no key of its objects.")
        return
    if key is None:
        if not prop.optional:
            raise ApplyError(f"The primary key of {cls.name} cannot be null.")
        return
    if _TYPE_OF.get(type(key)) is not prop.type:
        raise ApplyError(f"{key!r} is no key of {cls.name}, whose keys are {prop.word}.")


def thaw(value: Any) -> Any:
    """Copy what can be changed inside a value."""
    return copy.deepcopy(value) if isinstance(value, list | dict) else value
