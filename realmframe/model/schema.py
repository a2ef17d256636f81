"""Schemas: classes and their properties, in the SDK's object form."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from realmframe.errors import SchemaError
from realmframe.model.types import COLLECTION_SUFFIXES, TYPE_NAMES, TYPE_WORDS, ClassKind, Collection, PropertyType

#: The SDK puts the mark before the suffix of a collection; it is taken after it too.
_SHORT: Final = re.compile(r"(?P<word>[^?\[\]<>{}\s]+)(?P<optional>\?)?(?P<suffix>\[\]|<>|\{\})?(?P<late>(?<!\?)\?)?")
_KEY_TYPES: Final = frozenset({PropertyType.INT, PropertyType.STRING, PropertyType.OBJECT_ID, PropertyType.UUID})
#: Longest class name that the SDK's storage layer takes, and longest property name.
MAX_CLASS_NAME: Final = 57
MAX_PROPERTY_NAME: Final = 63


@dataclass(frozen=True, slots=True)
class Property:
    """One property of a class.

    Attributes
    ----------
    name : str
    type : PropertyType
    optional : bool
        Whether it (for a collection: each element) may be null. Mixed always may; a link to one object always may.
    collection : Collection
    target : str or None
        The class that a property of type ``OBJECT`` points at or embeds.
    """

    name: str
    type: PropertyType
    optional: bool = False
    collection: Collection = Collection.SINGLE
    target: str | None = None

    @classmethod
    def parse(cls, name: str, form: str | Mapping[str, Any] | Property) -> Property:
        """Read the short form (``"int?"``, ``"string[]"``, ``"Plane?"``) or the SDK's long form.

        Raises
        ------
        SchemaError
            If the form cannot be read.
        """
        if isinstance(form, Property):
            return form
        if isinstance(form, str):
            return _parse_short(name, form)
        return _parse_long(name, form)

    @property
    def word(self) -> str:
        """The short form."""
        base = self.target if self.type is PropertyType.OBJECT and self.target else TYPE_NAMES.get(self.type, "object")
        mark = "?" if self.optional and self.type is not PropertyType.MIXED else ""
        suffix = {c: s for s, c in COLLECTION_SUFFIXES.items()}.get(self.collection, "")
        return f"{base}{mark}{suffix}"

    @property
    def is_link(self) -> bool:
        """Whether it points at, or embeds, objects."""
        return self.type is PropertyType.OBJECT


def _parse_short(name: str, form: str) -> Property:
    match = _SHORT.fullmatch(form.strip())
    if match is None:
        raise SchemaError(
            f"Property {name!r}: {form!r} is no type.",
            hint="Write a type word or a class, then ? for optional, then [] (list), <> (set) or {} (dictionary).",
        )
    collection = COLLECTION_SUFFIXES.get(match["suffix"] or "", Collection.SINGLE)
    optional = bool(match["optional"] or match["late"])
    return _normalise(name, match["word"], optional, collection, None)


def _parse_long(name: str, form: Mapping[str, Any]) -> Property:
    word = str(form.get("type", ""))
    if word in ("list", "set", "dictionary"):
        collection = Collection[word.upper()]
        word = str(form.get("objectType", "mixed"))
        return _normalise(name, word, bool(form.get("optional", False)), collection, None)
    if "[" in word or "<" in word or "{" in word or "?" in word:
        return _parse_short(name, word)
    target = form.get("objectType")
    return _normalise(name, word, bool(form.get("optional", False)), Collection.SINGLE, target)


def _normalise(name: str, word: str, optional: bool, collection: Collection, target: str | None) -> Property:
    kind = TYPE_WORDS.get(word)
    if kind is not None:
        return Property(name, kind, optional or kind is PropertyType.MIXED, collection)
    if word == "object":
        if not target:
            raise SchemaError(f"Property {name!r}: a link needs the class that it points at (objectType).")
        word = target
    link_optional = collection in (Collection.SINGLE, Collection.DICTIONARY)
    return Property(name, PropertyType.OBJECT, link_optional, collection, word)


@dataclass(frozen=True, slots=True, init=False)
class ObjectSchema:
    """One class of a schema.

    Parameters
    ----------
    name : str
        The class name, without any prefix.
    properties : mapping
        Property name to :class:`Property`, short form or long form; the primary key is one of them.
    primary_key : str, optional
        Name of the primary-key property (int, string, objectId or uuid).
    kind : ClassKind
        Top-level (default), embedded or asymmetric.
    """

    name: str
    properties: Mapping[str, Property]
    primary_key: str | None
    kind: ClassKind
    #: The properties without the primary key, in declared order.
    columns: Mapping[str, Property] = field(repr=False, compare=False)

    def __init__(
        self,
        name: str,
        properties: Mapping[str, Property | str | Mapping[str, Any]] | None = None,
        primary_key: str | None = None,
        kind: ClassKind = ClassKind.TOPLEVEL,
    ) -> None:
        parsed = {n: Property.parse(n, form) for n, form in (properties or {}).items()}
        columns = {n: prop for n, prop in parsed.items() if n != primary_key}
        values = {"name": name, "properties": parsed, "primary_key": primary_key, "kind": kind, "columns": columns}
        for attribute, value in values.items():
            object.__setattr__(self, attribute, value)
        self._check_key(parsed)

    def _check_key(self, parsed: Mapping[str, Property]) -> None:
        if self.primary_key is None:
            return
        key = parsed.get(self.primary_key)
        if key is None:
            raise SchemaError(f"Class {self.name!r}: its primary key {self.primary_key!r} is not among its properties.")
        if key.type not in _KEY_TYPES or key.collection is not Collection.SINGLE:
            raise SchemaError(
                f"Class {self.name!r}: {key.word!r} cannot be the type of a primary key.",
                hint="A primary key is an int, string, objectId or uuid.",
            )

    @classmethod
    def parse(cls, form: ObjectSchema | Mapping[str, Any]) -> ObjectSchema:
        """Read the SDK's object form (``name``, ``primaryKey``, ``embedded``, ``asymmetric``, ``properties``)."""
        if isinstance(form, ObjectSchema):
            return form
        try:
            name, properties = str(form["name"]), form["properties"]
        except KeyError as missing:
            raise SchemaError(f"A class of the schema has no {missing.args[0]!r}.") from None
        kind = ClassKind.TOPLEVEL
        if form.get("embedded"):
            kind = ClassKind.EMBEDDED
        elif form.get("asymmetric"):
            kind = ClassKind.ASYMMETRIC
        return cls(name, properties, form.get("primaryKey", form.get("primary_key")), kind)

    @property
    def key_property(self) -> Property | None:
        """The primary-key property, or None."""
        return None if self.primary_key is None else self.properties[self.primary_key]

    @property
    def embedded(self) -> bool:
        """Whether its objects live inside others."""
        return self.kind is ClassKind.EMBEDDED

    def with_property(self, prop: Property) -> ObjectSchema:
        """Return this class with one more property."""
        return ObjectSchema(self.name, {**self.properties, prop.name: prop}, self.primary_key, self.kind)

    def without_property(self, name: str) -> ObjectSchema:
        """Return this class without one property."""
        kept = {n: p for n, p in self.properties.items() if n != name}
        return ObjectSchema(self.name, kept, self.primary_key, self.kind)

    def to_dict(self) -> dict[str, Any]:
        """Return the SDK's object form (JSON-able; :meth:`parse` reads it back)."""
        form: dict[str, Any] = {"name": self.name, "properties": {n: p.word for n, p in self.properties.items()}}
        if self.primary_key is not None:
            form["primaryKey"] = self.primary_key
        if self.kind is not ClassKind.TOPLEVEL:
            form[self.kind.name.lower()] = True
        return form


class Schema(Mapping[str, ObjectSchema]):
    """The classes of a realm by name; immutable.

    Parameters
    ----------
    classes : iterable of ObjectSchema or dict
        The SDK's object forms.
    """

    __slots__ = ("_classes",)

    def __init__(self, classes: Iterable[ObjectSchema | Mapping[str, Any]] = ()) -> None:
        parsed = [ObjectSchema.parse(c) for c in classes]
        self._classes = {c.name: c for c in parsed}
        if len(self._classes) != len(parsed):
            raise SchemaError("A schema names a class twice.")

    def __getitem__(self, name: str) -> ObjectSchema:
        return self._classes[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._classes)

    def __len__(self) -> int:
        return len(self._classes)

    def __repr__(self) -> str:
        return f"Schema({list(self._classes.values())!r})"

    def with_class(self, cls: ObjectSchema) -> Schema:
        """Return this schema with one class added or replaced."""
        return Schema({**self._classes, cls.name: cls}.values())

    def without_class(self, name: str) -> Schema:
        """Return this schema without one class."""
        return Schema(c for n, c in self._classes.items() if n != name)

    def validate(self) -> None:
        """Check names, and that every link has a target.

        Raises
        ------
        SchemaError
            Naming the class and property at fault.
        """
        for cls in self._classes.values():
            if not 0 < len(cls.name.encode()) <= MAX_CLASS_NAME:
                raise SchemaError(f"Class name {cls.name!r} must have 1 to {MAX_CLASS_NAME} bytes.")
            if cls.embedded and cls.primary_key is not None:
                raise SchemaError(f"Class {cls.name!r} is embedded and so cannot have a primary key.")
            for prop in cls.properties.values():
                self._validate_property(cls, prop)

    def _validate_property(self, cls: ObjectSchema, prop: Property) -> None:
        if not 0 < len(prop.name.encode()) <= MAX_PROPERTY_NAME:
            raise SchemaError(f"{cls.name}.{prop.name}: a property name must have 1 to {MAX_PROPERTY_NAME} bytes.")
        if not prop.is_link:
            return
        target = self._classes.get(prop.target or "")
        if target is None:
            raise SchemaError(f"{cls.name}.{prop.name} points at {prop.target!r}, which is no class of the schema.")
        if target.kind is ClassKind.ASYMMETRIC:
            raise SchemaError(f"{cls.name}.{prop.name} points at {prop.target!r}, which is asymmetric.")
        if target.embedded and prop.collection is Collection.SET:
            raise SchemaError(f"{cls.name}.{prop.name}: a set cannot hold embedded objects.")

    def to_list(self) -> list[dict[str, Any]]:
        """Return the SDK's object forms (JSON-able)."""
        return [c.to_dict() for c in self._classes.values()]
