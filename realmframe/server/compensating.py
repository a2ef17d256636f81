"""Writes that are taken back: which those are, and how their client hears of it (error 231, compensating writes).

The error names a server version, and the objects come, as they are here, with an entry of just that version: only then
a real client tells its app.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import replace
from typing import Final

from realmframe.changes import Changeset, concat
from realmframe.model import ClassKind, Key, ObjectId
from realmframe.server.bootstrap import states_of
from realmframe.server.entries import Integrated
from realmframe.server.history import History
from realmframe.server.permissions import Permissions, classes_of, split
from realmframe.server.reverted import Reverted
from realmframe.server.session import Changes, Session
from realmframe.server.views import View, erasures
from realmframe.wire import UploadEntry

#: Characters of a key that the reason of a refusal shows.
_SHOWN: Final = 100


def allowed(
    history: History, permissions: Permissions, session: Session, entry: UploadEntry
) -> tuple[UploadEntry, Changeset | None]:
    """Take out of what a client wrote the objects of classes that its user may not write to."""
    if entry.client_version <= session.file.client_version:
        return entry, None
    changeset = Changeset.decode(entry.changeset)
    classes = classes_of(changeset)
    known = history.snapshot.schema
    is_read = {n: n in known and known[n].kind is ClassKind.TOPLEVEL for n in classes}
    forbidden = permissions.forbidden(session.file.user, is_read)
    if not forbidden:
        return entry, None
    rest, refused = split(changeset, [classes[name] for name in forbidden])
    return replace(entry, changeset=rest.encode()), refused


def outside(session: Session, found: Integrated) -> tuple[Changeset, tuple[tuple[str, Key, str], ...]]:
    """Give new objects that their writer's queries do not match: their erasure, and class, key and reason of each."""
    snapshot, parts, named = found.applied.snapshot, list[Changeset](), list[tuple[str, Key, str]]()
    for name, touched in found.applied.touched.items():
        if not len(touched.inserted) or snapshot.schema[name].kind is not ClassKind.TOPLEVEL:
            continue
        beyond = touched.inserted[~session.view.members(snapshot, name, touched.inserted)]
        if len(beyond):
            parts.append(erasures(snapshot.tables[name], beyond))
            reason = "object is outside of the current query view"
            named += [(name, key, _refusal(name, key, reason)) for key in found.applied.keys(name, beyond)]
    return concat(parts), tuple(named)


def _refusal(name: str, key: Key, reason: str) -> str:
    """Say why an object may not be written, in the service's words: apps look for them."""
    text = str(key)[:_SHOWN].encode(errors="replace").decode()
    shown = json.dumps(key if isinstance(key, int | None) else text, ensure_ascii=False)
    kind = {ObjectId: "ObjectID", uuid.UUID: "UUID"}.get(type(key))
    return f'write to {shown if kind is None else f"{kind}({shown})"} in table "{name}" not allowed; {reason}'


def take_back(history: History, session: Session, found: Integrated, refused: Changeset) -> None:
    """Tell a client that a write was not allowed, and what the objects are here."""
    reason = "user does not have permission to write to this class"
    keys = {(i.table, i.pk): None for i in refused.instructions() if hasattr(i, "pk")}
    named = tuple((name, key, _refusal(name, key, reason)) for name, key in keys)
    made = Reverted(history.version, found.entry.client_version, named)
    warn(history, session, made)
    send_reverted(history, session, made.erasures())


def warn(history: History, session: Session, made: Reverted) -> None:
    """Tell a client of writes that were reverted; its app hears of them once it has the server version."""
    history.files.note_reverted(session.file, made)
    if session.is_lagging:
        return  # it is told when it catches up: of the version which that comes with
    at = len(session.outbox)
    while at and isinstance(last := session.outbox[at - 1], Changes) and last.version == made.version:
        at -= 1  # what belongs to one version comes in one message
    session.outbox.insert(at, made)


def send_reverted(history: History, session: Session, named: Changeset) -> None:
    """Send a client the objects of writes that were reverted, as they are now."""
    session.synthetic = session.covered = version = history.version
    if session.is_lagging:
        return  # it comes when the client catches up
    # An entry has to come, even an empty one: the client tells its app when this version is there.
    session.append_made(version, states_of_reverted(history, session, named), version - 1)


def states_of_reverted(history: History, session: Session, named: Changeset) -> bytes:
    """Give the objects of writes that were reverted, as they are now, also of classes that the client does not see."""
    unseen = {n: "FALSEPREDICATE" for n in classes_of(named) if not session.view.sees(n)}
    return states_of(history.snapshot, named, View(session.view.texts | unseen)).encode()


def tell_again(history: History, session: Session, since: int) -> Changeset:
    """Tell again of what was reverted after a version, since the client may not have got it; name the objects."""
    kept = [made for version, made in sorted(session.file.reverted.items()) if version > since]
    # It comes with the newest version, and real clients expect an error's version among those that come.
    session.outbox += [replace(made, version=history.version) for made in kept]
    return concat([made.erasures() for made in kept])
