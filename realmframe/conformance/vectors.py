"""The JSON of golden vectors to the model's values and instructions, and back."""

from __future__ import annotations

import gzip
import json
import struct
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np

from realmframe.changes import instructions as ins
from realmframe.errors import UsageError
from realmframe.model import (
    ClassKind,
    Collection,
    Decimal128,
    EmbeddedObject,
    GlobalKey,
    Key,
    Link,
    Marker,
    ObjectId,
    PayloadType,
    Property,
    PropertyType,
    RealmSet,
    Schema,
    Timestamp,
)

_TYPE_NAMES: Final[dict[int, str]] = {
    PropertyType.MIXED: "Null",
    PropertyType.INT: "Int",
    PropertyType.BOOL: "Bool",
    PropertyType.STRING: "String",
    PropertyType.DATA: "Binary",
    PropertyType.DATE: "Timestamp",
    PropertyType.FLOAT: "Float",
    PropertyType.DOUBLE: "Double",
    PropertyType.DECIMAL128: "Decimal",
    PropertyType.OBJECT: "Link",
    PropertyType.OBJECT_ID: "ObjectId",
    PropertyType.UUID: "UUID",
    # What the decoder lets through for a column or key type, though no schema has it.
    PayloadType.GLOBAL_KEY: "GlobalKey",
    PayloadType.OBJECT_VALUE: "ObjectValue",
    PayloadType.DICTIONARY: "Dictionary",
    PayloadType.ERASED: "Erased",
    PayloadType.LIST: "List",
    PayloadType.SET: "Set",
}
TYPES: Final[dict[str, Any]] = {name: kind for kind, name in _TYPE_NAMES.items()}
_MARKERS: Final = {marker.value: marker for marker in Marker}


@dataclass(frozen=True, slots=True)
class Unreadable:
    """In place of a line that is no JSON, or from which on a file cannot be read."""

    reason: str


def scan(path: str | Path) -> Iterator[tuple[int, Any]]:
    """Read a ``.jsonl`` file, compressed or not, whatever is in it.

    Yields
    ------
    (number, content)
        For each line that is not blank, its number from 1 on, and its JSON or :class:`Unreadable`.
    """
    path, number = Path(path), 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
                if text.strip():
                    yield number, _parsed(text)
    except (OSError, EOFError, zlib.error) as error:
        yield number + 1, Unreadable(f"the file cannot be read any further: {error}")


def _parsed(text: bytes) -> Any:
    try:
        return json.loads(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        return Unreadable(f"cannot be read: {error}")


def read_lines(path: str | Path) -> Iterator[dict[str, Any]]:
    """Read a ``.jsonl`` file, compressed or not.

    Raises
    ------
    UsageError
        At a line that is no JSON object.
    """
    for number, line in scan(path):
        if not isinstance(line, dict):
            reason = line.reason if isinstance(line, Unreadable) else "is no JSON object"
            raise UsageError(f"{Path(path).name}, line {number}: {reason}.")
        yield line


def string_from_json(form: Any) -> str:
    """Read a string (bytes that are no UTF-8 come as ``surrogateescape``)."""
    if isinstance(form, Mapping):
        return bytes.fromhex(form["bytes"]).decode("utf-8", "surrogateescape")
    return str(form)


def string_to_json(text: str) -> Any:
    """Write a string."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return {"bytes": text.encode("utf-8", "surrogateescape").hex()}
    return text


def _double(form: Mapping[str, Any]) -> float:
    return float(struct.unpack(">d", bytes.fromhex(form["bits"]))[0])


def _float(form: Mapping[str, Any]) -> np.float32:
    value: np.float32 = np.uint32(int(form["bits"], 16)).view(np.float32)
    return value


def _decimal(form: Mapping[str, Any]) -> Decimal128:
    pattern = int(form["bid"], 16)
    return Decimal128(pattern >> 64, pattern & 0xFFFFFFFFFFFFFFFF)


_READERS: Final[dict[str, Callable[[Mapping[str, Any]], Any]]] = {
    "Null": lambda f: None,
    "Int": lambda f: int(f["v"]),
    "Bool": lambda f: bool(f["v"]),
    "String": lambda f: string_from_json(f["v"]),
    "Binary": lambda f: bytes.fromhex(f["v"]),
    "Timestamp": lambda f: Timestamp(int(f["s"]), int(f["ns"])),
    "Float": _float,
    "Double": _double,
    "Decimal": _decimal,
    "ObjectId": lambda f: ObjectId(bytes.fromhex(f["v"])),
    "UUID": lambda f: uuid.UUID(hex=f["v"]),
    "GlobalKey": lambda f: GlobalKey(int(f["hi"]), int(f["lo"])),
    "Link": lambda f: Link(string_from_json(f["table"]), value_from_json(f["pk"])),
    "Object": lambda f: EmbeddedObject({k: value_from_json(v) for k, v in f["v"].items()}),
}
_COLLECTIONS: Final[dict[str, Callable[[Any], Any]]] = {
    "List": lambda v: [value_from_json(e) for e in v],
    "Set": lambda v: RealmSet(value_from_json(e) for e in v),
    "Dictionary": lambda v: {k: value_from_json(e) for k, e in v.items()},
}


def value_from_json(form: Mapping[str, Any]) -> Any:
    """Read a typed value (a marker where a collection carries no data)."""
    kind = form["t"]
    if kind in _COLLECTIONS and "v" in form:
        return _COLLECTIONS[kind](form["v"])
    if kind in _MARKERS:
        return _MARKERS[kind]
    return _READERS[kind](form)


def value_to_json(value: Any) -> dict[str, Any]:
    """Write a typed value, without the members that only inform people.

    Raises
    ------
    UsageError
        For a value that is none of the model's.
    """
    write = _WRITERS.get(type(value))
    if write is not None:
        return write(value)
    raise UsageError(f"A {type(value).__name__} is no value of a realm, so the vectors have no form for it.")


_WRITERS: Final[dict[type, Callable[[Any], dict[str, Any]]]] = {
    type(None): lambda v: {"t": "Null"},
    bool: lambda v: {"t": "Bool", "v": v},
    int: lambda v: {"t": "Int", "v": str(v)},
    str: lambda v: {"t": "String", "v": string_to_json(v)},
    bytes: lambda v: {"t": "Binary", "v": v.hex()},
    Timestamp: lambda v: {"t": "Timestamp", "s": str(v.seconds), "ns": v.nanoseconds},
    np.float32: lambda v: {"t": "Float", "bits": f"{int(v.view(np.uint32)):08x}"},
    float: lambda v: {"t": "Double", "bits": struct.pack(">d", v).hex()},
    Decimal128: lambda v: {"t": "Decimal", "bid": f"{v.high:016x}{v.low:016x}"},
    ObjectId: lambda v: {"t": "ObjectId", "v": v.binary.hex()},
    uuid.UUID: lambda v: {"t": "UUID", "v": v.hex},
    GlobalKey: lambda v: {"t": "GlobalKey", "hi": str(v.hi), "lo": str(v.lo)},
    Link: lambda v: {"t": "Link", "table": string_to_json(v.table), "pk": value_to_json(v.key)},
    Marker: lambda v: {"t": v.value},
    list: lambda v: {"t": "List", "v": [value_to_json(e) for e in v]},
    RealmSet: lambda v: {"t": "Set", "v": sorted((value_to_json(e) for e in v), key=json_text)},
    dict: lambda v: {"t": "Dictionary", "v": {k: value_to_json(e) for k, e in v.items()}},
    EmbeddedObject: lambda v: {"t": "Object", "v": {k: value_to_json(e) for k, e in v.items()}},
}


def json_text(form: Any) -> bytes:
    """Give the bytes that forms are sorted by."""
    return json.dumps(form, ensure_ascii=False, separators=(",", ":"), sort_keys=True).encode()


#: Members that inform people only; left out when forms are compared.
INFORMATIVE: Final = frozenset({"repr", "str", "coeff", "exp", "neg"})


def plain(form: Any) -> Any:
    """Drop what informs people only, and sort sets, so that forms can be compared."""
    if isinstance(form, list):
        return [plain(f) for f in form]
    if not isinstance(form, dict):
        return form
    # A typed value says its type in words; a dictionary or an object may itself have a member "t".
    typed = isinstance(form.get("t"), str)
    kept = {k: plain(v) for k, v in form.items() if not (typed and k in INFORMATIVE)}
    if kept.get("t") == "Set" and "v" in kept:
        kept["v"] = sorted(kept["v"], key=json_text)
    return kept


def _key(form: Mapping[str, Any]) -> Key:
    key: Key = value_from_json(form)
    return key


def _where(f: Mapping[str, Any]) -> tuple[str, Key, str, tuple[int | str, ...]]:
    path = tuple(step if isinstance(step, int) else string_from_json(step) for step in f["path"])
    return string_from_json(f["table"]), _key(f["pk"]), string_from_json(f["field"]), path


def _add_table(f: Mapping[str, Any]) -> ins.Instruction:
    kind, table = ClassKind[f["kind"].upper()], string_from_json(f["table"])
    if kind is ClassKind.EMBEDDED:
        return ins.AddTable(table, kind)
    pk_type = None if f["pk_type"] == "GlobalKey" else TYPES[f["pk_type"]]
    return ins.AddTable(table, kind, string_from_json(f["pk_field"]), pk_type, f["pk_nullable"])


def _add_column(f: Mapping[str, Any]) -> ins.Instruction:
    target = string_from_json(f["link_target"]) if "link_target" in f else None
    key_type = TYPES[f["key_type"]] if "key_type" in f else None
    collection = Collection[f["collection"].upper()]
    table, field = string_from_json(f["table"]), string_from_json(f["field"])
    return ins.AddColumn(table, field, TYPES[f["type"]], f["nullable"], collection, target, key_type)


_INSTRUCTION_READERS: Final[dict[str, Callable[[Mapping[str, Any]], ins.Instruction]]] = {
    "AddTable": _add_table,
    "EraseTable": lambda f: ins.EraseTable(string_from_json(f["table"])),
    "AddColumn": _add_column,
    "EraseColumn": lambda f: ins.EraseColumn(string_from_json(f["table"]), string_from_json(f["field"])),
    "CreateObject": lambda f: ins.CreateObject(string_from_json(f["table"]), _key(f["pk"])),
    "EraseObject": lambda f: ins.EraseObject(string_from_json(f["table"]), _key(f["pk"])),
    "Update": lambda f: ins.Update(
        *_where(f), value_from_json(f["value"]), f.get("prior_size", 0), f.get("is_default", False)
    ),
    "AddInteger": lambda f: ins.AddInteger(*_where(f), int(f["value"])),
    "ArrayInsert": lambda f: ins.ArrayInsert(*_where(f), value_from_json(f["value"]), f["prior_size"]),
    "ArrayMove": lambda f: ins.ArrayMove(*_where(f), f["ndx_2"], f["prior_size"]),
    "ArrayErase": lambda f: ins.ArrayErase(*_where(f), f["prior_size"]),
    "Clear": lambda f: ins.Clear(*_where(f), Collection[f["collection"].upper()]),
    "SetInsert": lambda f: ins.SetInsert(*_where(f), value_from_json(f["value"])),
    "SetErase": lambda f: ins.SetErase(*_where(f), value_from_json(f["value"])),
}


def instruction_from_json(form: Mapping[str, Any]) -> ins.Instruction:
    """Read an instruction."""
    return _INSTRUCTION_READERS[form["op"]](form)


def instruction_to_json(one: ins.Instruction) -> dict[str, Any]:
    """Write an instruction."""
    form: dict[str, Any] = {"op": type(one).__name__, "table": string_to_json(one.table)}
    match one:
        case ins.AddTable():
            form["kind"] = one.kind.name.lower()
            if one.kind is not ClassKind.EMBEDDED:
                form["pk_field"] = string_to_json(one.pk_field)
                form["pk_type"] = "GlobalKey" if one.pk_type is None else _TYPE_NAMES[one.pk_type]
                form["pk_nullable"] = one.pk_nullable
        case ins.AddColumn():
            form |= {"field": string_to_json(one.field), **_column_to_json(one)}
        case ins.EraseColumn():
            form["field"] = string_to_json(one.field)
        case ins.CreateObject() | ins.EraseObject():
            form["pk"] = value_to_json(one.pk)
        case ins.EraseTable():
            pass
        case _:
            form["pk"], form["field"] = value_to_json(one.pk), string_to_json(one.field)
            form["path"] = [s if isinstance(s, int) else string_to_json(s) for s in one.path]
            form |= _members_to_json(one)
    return form


def _column_to_json(one: ins.AddColumn) -> dict[str, Any]:
    collection = one.collection.name.capitalize()
    form = {"type": _TYPE_NAMES[one.type], "nullable": one.nullable, "collection": collection}
    if one.link_target is not None:
        form["link_target"] = string_to_json(one.link_target)
    if one.key_type is not None:
        form["key_type"] = _TYPE_NAMES[one.key_type]
    return form


def _members_to_json(one: ins.Instruction) -> dict[str, Any]:
    match one:
        case ins.AddInteger():
            return {"value": str(one.value)}
        case ins.Clear():
            return {"collection": one.collection.name.capitalize()}
        case ins.ArrayErase():
            return {"prior_size": one.prior_size}
        case ins.ArrayMove():
            return {"ndx_2": one.ndx_2, "prior_size": one.prior_size}
        case ins.ArrayInsert():
            return {"value": value_to_json(one.value), "prior_size": one.prior_size}
        case ins.Update():
            indexed = bool(one.path) and isinstance(one.path[-1], int)
            last = {"prior_size": one.prior_size} if indexed else {"is_default": one.is_default}
            return {"value": value_to_json(one.value), **last}
        case ins.SetInsert() | ins.SetErase():
            return {"value": value_to_json(one.value)}
    return {}


class _Table(Protocol):
    def __len__(self) -> int: ...
    def row(self, position: int) -> Mapping[str, Any]: ...
    def key(self, position: int) -> Key: ...


class _State(Protocol):
    @property
    def schema(self) -> Schema: ...
    def table(self, cls: str) -> _Table: ...


def _property_to_json(prop: Property) -> dict[str, Any]:
    kind = "Mixed" if prop.type is PropertyType.MIXED else _TYPE_NAMES[prop.type]
    form: dict[str, Any] = {"type": kind, "nullable": prop.optional, "collection": prop.collection.name.capitalize()}
    if prop.target is not None:
        form["link_target"] = prop.target
    return form


def state_to_json(state: _State, *, sort: bool = True) -> dict[str, Any]:
    """Write the state of a snapshot: schema members and, unless embedded, the objects.

    ``table.row(i)`` gives all properties including the primary key; ``table.key(i)`` the object's key.
    """
    return {name: _class_to_json(state, name, sort) for name in state.schema}


def _class_to_json(state: _State, name: str, sort: bool) -> dict[str, Any]:
    cls = state.schema[name]
    key = cls.key_property
    form: dict[str, Any] = {"kind": cls.kind.name.lower(), "pk": None, "columns": {}}
    if key is not None:
        form["pk"] = {"name": key.name, "type": _TYPE_NAMES[key.type], "nullable": key.optional}
    form["columns"] = {column: _property_to_json(prop) for column, prop in sorted(cls.columns.items())}
    if cls.embedded:
        return form
    table = state.table(name)
    objects = []
    for position in range(len(table)):
        row = table.row(position)
        fields = {column: value_to_json(row[column]) for column in cls.columns}
        objects.append({"pk": value_to_json(table.key(position)), "fields": fields})
    form["objects"] = sorted(objects, key=lambda o: json_text(o["pk"])) if sort else objects
    return form
