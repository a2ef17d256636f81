"""Places in an object that is being written: lists, sets, dictionaries and embedded objects changed in place.

Each operation emits what the SDKs emit for theirs, so what several devices do to one collection at the same time merges
element by element, where a value that is written whole would win or lose as a whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from realmframe.changes import Instruction
from realmframe.changes import instructions as ins
from realmframe.changes.instructions import Path
from realmframe.errors import RealmError, WriteError
from realmframe.frames import cell_value, coerce_cell
from realmframe.model import (
    Collection,
    EmbeddedObject,
    Key,
    Marker,
    ObjectSchema,
    Property,
    PropertyType,
    RealmSet,
)
from realmframe.store import (
    check_field,
    insertion_instructions,
    revision_instructions,
    same_element,
    value_instructions,
)

if TYPE_CHECKING:
    from realmframe.realm.transaction import Transaction

__all__ = ["Place", "WrittenObject"]


class WrittenObject:
    """One object of a transaction; made by ``tx.object("Person", key)``.

    Examples
    --------
    >>> person = tx.object("Person", 1)  # doctest: +SKIP
    >>> person["tags"].append("new")  # a list  # doctest: +SKIP
    >>> person["scores"]["maths"] = 1.0  # a dictionary  # doctest: +SKIP
    >>> person["address"]["city"] = "Oslo"  # one field of an embedded object  # doctest: +SKIP
    >>> person["visits"].increment()  # doctest: +SKIP
    """

    def __init__(self, tx: Transaction, cls: ObjectSchema, key: Key) -> None:
        self._tx, self._cls, self._key = tx, cls, key

    def __repr__(self) -> str:
        return f"<{self._cls.name} {self._key!r} being written>"

    def __getitem__(self, name: str) -> Place:
        return Place(self._tx, self._cls, self._key, check_field(name, self._cls))

    def __setitem__(self, name: str, value: Any) -> None:
        self[name].set(value)

    @property
    def value(self) -> dict[str, Any]:
        """All properties with what was written so far."""
        return {name: self[name].value for name in self._cls.properties}


class Place:
    """A property of an object, or a place inside it.

    Parameters
    ----------
    tx : Transaction
    cls : ObjectSchema
    key : object key
    field : Property
        The property of the class.
    path : tuple of int or str
        From the property to the place.
    """

    def __init__(self, tx: Transaction, cls: ObjectSchema, key: Key, field: Property, path: Path = ()) -> None:
        self._tx, self._cls, self._key, self._field, self._path = tx, cls, key, field, path

    # ------------------------------------------------------------------ reading

    @property
    def _name(self) -> str:
        return f"{self._cls.name}.{self._field.name}" + "".join(f"[{s!r}]" for s in self._path)

    def __repr__(self) -> str:
        try:
            return f"<{self._name} of {self._key!r}: {self.value!r}>"
        except RealmError:  # there is no such object, or no transaction, any more
            return f"<{self._name} of {self._key!r}>"

    def _fail(self, text: str, hint: str | None = None) -> WriteError:
        return WriteError(f"{self._name} of {self._key!r} {text}", hint=hint)

    def _find(self) -> tuple[Any, Property]:
        """Give the model value of the place, and its property; a place need not hold anything to be put into."""
        return self._walk(self._path)

    def _walk(self, path: Path) -> tuple[Any, Property]:
        tables = self._tx.snapshot
        row = int(tables.find(self._cls.name, [self._key])[0])
        if row < 0:
            raise WriteError(f"{self._cls.name} has no object with the key {self._key!r} any more.")
        table = tables.table(self._cls.name)
        prop = self._field
        value = self._key if prop.name == self._cls.primary_key else table.columns_value(prop.name, row)
        for step in path:
            value, prop = self._below(value, prop, step)
        return value, prop

    def _below(self, value: Any, prop: Property, step: int | str) -> tuple[Any, Property]:
        if isinstance(value, EmbeddedObject):
            target = self._tx.schema[prop.target or ""]
            inner = check_field(step, target)
            return value[inner.name], inner
        element = replace(prop, collection=Collection.SINGLE)
        if prop.collection is Collection.SET or isinstance(value, RealmSet):
            raise self._fail("is a set, whose elements have no place.", "Use add and remove.")
        if isinstance(value, list | dict):
            try:
                return value[step], element  # type: ignore[index]
            except (IndexError, KeyError, TypeError):
                raise self._fail(f"holds nothing at {step!r}.") from None
        raise self._fail(f"holds {value!r}, which has no places in it.")

    @property
    def value(self) -> Any:
        """What is there, as a frame shows it, with all that was written so far."""
        return cell_value(self._find()[0])

    def __len__(self) -> int:
        return len(self._collection())

    def __iter__(self) -> Iterator[Any]:
        return iter(cell_value(v) for v in self._collection())

    def __contains__(self, item: Any) -> bool:
        held, prop = self._find()
        if isinstance(held, dict):
            return item in held
        return any(same_element(v, self._element(item, prop)) for v in self._collection())

    def __bool__(self) -> bool:
        return True

    def __getitem__(self, step: int | str) -> Place:
        held, prop = self._find()
        if type(held) is list and isinstance(step, int):
            step = self._index(step, len(held))
        made = Place(self._tx, self._cls, self._key, self._field, (*self._path, step))
        if not (isinstance(held, dict) and not isinstance(held, EmbeddedObject)):
            self._below(held, prop, step)
        else:
            self._coerced({step: None}, Property(self._field.name, PropertyType.MIXED, True, Collection.DICTIONARY))
        return made

    def _index(self, index: int, size: int, *, end: bool = False) -> int:
        found = index + size if index < 0 else index
        if not 0 <= found < size + end:
            raise self._fail(f"has {size} elements, so {index} is no index.")
        return found

    # ------------------------------------------------------------------ writing

    @property
    def _at(self) -> tuple[str, Key, str, Path]:
        return self._cls.name, self._key, self._field.name, self._path

    def _find_at(self) -> tuple[Property, Path]:
        return self._find()[1], self._path

    def _emit(self, instructions: Iterable[Instruction]) -> None:
        self._tx.put_instructions(instructions)

    def _below_at(self, step: int | str) -> tuple[str, Key, str, Path]:
        return (*self._at[:3], (*self._path, step))

    def _coerced(self, value: Any, prop: Property) -> Any:
        try:
            return coerce_cell(value, prop, self._tx.schema)
        except WriteError as fault:
            text = fault.message.removeprefix("[0]: ").removeprefix("['_']: ")
            raise WriteError(f"{self._name} of {self._key!r}: {text}", hint=fault.hint) from None

    def _element(self, value: Any, prop: Property) -> Any:
        collection = self._field.collection if not self._path else prop.collection
        made = self._coerced([value] if collection is not Collection.DICTIONARY else {"_": value}, self._as_whole(prop))
        return made["_"] if isinstance(made, dict) else made[0]

    def _as_whole(self, prop: Property) -> Property:
        """Give the property of a collection: a Mixed value that holds one has no collection of its own."""
        if prop.collection is not Collection.SINGLE:
            return prop
        held = self._find()[0]
        return replace(prop, collection=Collection.LIST if isinstance(held, list) else Collection.DICTIONARY)

    def set(self, value: Any) -> None:
        """Put a value here, whole: a collection is emptied first, an embedded object replaced."""
        if not self._path and self._field.name == self._cls.primary_key:
            raise self._fail("is the primary key and cannot be changed.")
        parent = self._walk(self._path[:-1])[0] if self._path else None
        if isinstance(parent, dict) and not isinstance(parent, EmbeddedObject):
            element = replace(self._walk(self._path[:-1])[1], collection=Collection.SINGLE)
            held, prop = parent.get(str(self._path[-1])), element
        else:
            held, prop = self._find()
        made = self._made(value, prop)
        if type(parent) is list:
            self._replace_element(made, prop, len(parent))
            return
        reset = held is not None or prop.collection is not Collection.SINGLE
        keyed = isinstance(parent, dict) and not isinstance(parent, EmbeddedObject)
        if keyed and isinstance(made, EmbeddedObject):
            reset = False  # a new one takes the key
        schema = self._tx.schema
        self._emit(value_instructions(schema, *self._at[:2], self._field, made, reset=reset, at=(prop, self._path)))

    def _made(self, value: Any, prop: Property) -> Any:
        inside = bool(self._path) and prop.collection is Collection.SINGLE
        if inside and value is None and not (prop.optional or prop.type is PropertyType.MIXED):
            raise self._fail("is not optional and cannot be null.")
        return self._coerced(value, prop)

    def _replace_element(self, value: Any, prop: Property, size: int) -> None:
        if value is None and prop.type is PropertyType.OBJECT:
            raise self._fail("cannot be null: lists hold no null links or objects.", "Remove the element.")
        if isinstance(value, EmbeddedObject):
            # As the SDKs do it: an object value alone would leave the old object's fields.
            self._emit([ins.ArrayErase(*self._at, size)])
            self._emit(self._insertion(value, prop, self._path, size - 1))
            return
        made = value_instructions(self._tx.schema, *self._at[:2], self._field, value, at=(prop, self._path))
        first, *rest = made
        assert isinstance(first, ins.Update)
        self._emit([replace(first, prior_size=size), *rest])

    def _insertion(self, value: Any, element: Property, path: Path, size: int) -> Iterator[Instruction]:
        return insertion_instructions(self._tx.schema, *self._at[:3], element, value, path, size)

    def __setitem__(self, step: int | str, value: Any) -> None:
        self[step].set(value)

    def __delitem__(self, step: int | str) -> None:
        held, _ = self._find()
        if type(held) is list and isinstance(step, int):
            index = self._index(step, len(held))
            self._emit([ins.ArrayErase(*self._below_at(index), len(held))])
        elif type(held) is dict:
            if step not in held:
                raise self._fail(f"has no key {step!r}.")
            self._emit([ins.Update(*self._below_at(step), Marker.ERASED)])
        else:
            raise self._fail(f"has nothing to remove at {step!r}.", "Set a field to None.")

    def increment(self, amount: int = 1) -> None:
        """Add to an integer, so that increments on several devices add up."""
        held, prop = self._find()
        parent = self._walk(self._path[:-1])[0] if self._path else None
        if not self._path and self._field.name == self._cls.primary_key:
            raise self._fail("is the primary key and cannot be changed.")
        if parent is not None and not isinstance(parent, EmbeddedObject):
            raise self._fail("stands in a collection, where the SDKs have no increments.", "Set it.")
        if prop.type not in (PropertyType.INT, PropertyType.MIXED) or prop.collection is not Collection.SINGLE:
            raise self._fail("is no integer that could be incremented.")
        if held is None:
            raise self._fail("is null and cannot be incremented.", "Set it first.")
        if isinstance(held, bool) or not isinstance(held, int):
            raise self._fail(f"holds {held!r}, which is no integer.")
        self._emit([ins.AddInteger(*self._at, self._coerced(amount, Property("amount", PropertyType.INT)))])

    # ------------------------------------------------------------------ collections

    def _collection(self) -> Any:
        held, _ = self._find()
        if isinstance(held, EmbeddedObject) or not isinstance(held, list | dict):
            raise self._fail("is no collection.")
        return held

    def _list(self) -> tuple[list[Any], Property]:
        held, prop = self._find()
        if type(held) is not list:
            raise self._fail("is no list.", "Sets have add and remove, dictionaries place[key] = value.")
        return held, replace(prop, collection=Collection.SINGLE)

    def append(self, value: Any) -> None:
        """Add to the end of a list."""
        self.insert(len(self._list()[0]), value)

    def extend(self, values: Iterable[Any]) -> None:
        """Add several values to the end of a list."""
        for value in values:
            self.append(value)

    def insert(self, index: int, value: Any) -> None:
        """Insert into a list before an element."""
        held, element = self._list()
        index = self._index(index, len(held), end=True)
        made = self._element(value, self._find()[1])
        self._emit(self._insertion(made, element, (*self._path, index), len(held)))

    def move(self, index: int, to: int) -> None:
        """Move an element of a list, so that it stands at ``to`` afterwards."""
        held, _ = self._list()
        index, to = self._index(index, len(held)), self._index(to, len(held))
        if index != to:
            self._emit([ins.ArrayMove(*self._below_at(index), to, len(held))])

    def remove(self, value: Any) -> None:
        """Remove the first equal element of a list, or the element of a set.

        Raises
        ------
        WriteError
            If there is none.
        """
        held = self._collection()
        if isinstance(held, dict):
            raise self._fail("is a dictionary.", "Use `del place[key]`.")
        wanted = self._element(value, self._find()[1])
        place = next((n for n, v in enumerate(held) if same_element(v, wanted)), None)
        if place is None:
            raise self._fail(f"does not hold {value!r}.")
        if isinstance(held, RealmSet):
            rest = RealmSet([v for n, v in enumerate(held) if n != place])
            self._emit(revision_instructions(self._tx.schema, *self._at[:2], self._field, held, rest, self._find_at()))
        else:
            del self[place]

    def pop(self, step: int | str = -1) -> Any:
        """Remove an element of a list (the last one by default) or a key of a dictionary, and give its value."""
        value = self[step].value
        del self[step]
        return value

    def add(self, value: Any) -> None:
        """Add to a set; nothing happens if it has the value."""
        held, prop = self._set()
        wanted = self._element(value, prop)
        if not any(same_element(v, wanted) for v in held):
            self._emit([ins.SetInsert(*self._at, wanted)])

    def discard(self, value: Any) -> None:
        """Remove from a set, if it is there."""
        self._set()
        if value in self:
            self.remove(value)

    def _set(self) -> tuple[RealmSet, Property]:
        held, prop = self._find()
        if not isinstance(held, RealmSet):
            raise self._fail("is no set.", "Lists have append and insert.")
        return held, prop

    def update(self, values: Iterable[Any] | Mapping[str, Any]) -> None:
        """Put several keys of a dictionary or fields of an embedded object, or add several values to a set."""
        held, _ = self._find()
        if isinstance(held, dict):
            for key, value in dict(values).items():
                self[key] = value
            return
        for value in values:
            self.add(value)

    def clear(self) -> None:
        """Empty a collection."""
        held = self._collection()
        kind = Collection.SET if isinstance(held, RealmSet) else Collection.LIST
        self._emit([ins.Clear(*self._at, Collection.DICTIONARY if isinstance(held, dict) else kind)])
