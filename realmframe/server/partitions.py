"""Names of partitions: one for each value, in the form that the SDKs send."""

from __future__ import annotations

import json
import logging
import os
import uuid
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from realmframe.errors import ProtocolError, RealmError
from realmframe.model import ObjectId, ejson
from realmframe.server import database as db
from realmframe.server.checkpoints import checkpoint_folder

log: Final = logging.getLogger("realmframe.server")

#: What the names of partitions begin with in the database; after it comes the value's text.
PREFIX: Final = "partition "


def partition_of(text: str) -> tuple[Any, str]:
    """Read the partition that a client names in BIND.

    Parameters
    ----------
    text : str
        Extended JSON. SDKs write one value in several ways.

    Returns
    -------
    value, text
        The value, and one text for it, in the form that the SDKs send.

    Raises
    ------
    ProtocolError
        If it is no partition value.
    """
    try:
        value = ejson.decode(json.loads(text)) if text else None
    except (ValueError, TypeError, KeyError, RealmError) as error:
        raise ProtocolError("The partition is no extended JSON.") from error
    is_fine = value is None or (isinstance(value, str | int | ObjectId | uuid.UUID) and not isinstance(value, bool))
    if not is_fine or (isinstance(value, int) and not -(1 << 63) <= value < 1 << 63):
        raise ProtocolError("A partition is a string, an integer, an ObjectId, a UUID or null.")
    return value, json.dumps(ejson.encode(value))


def respell(database: db.Database, folder: Path | None) -> None:
    """Give partitions the one name of their value, where an older version took the text as the client wrote it.

    Where one value has several realms, each keeps its data; clients get the one whose name is right already, or else
    the oldest, and the others are told in the log.

    Parameters
    ----------
    database : Database
        Nobody uses its realms yet.
    folder : Path, optional
        Where checkpoints lie; they move with the name.
    """
    t = db.realms.c
    with database.transaction() as sql:
        rows = sql.execute(sa.select(t.id, t.app, t.name).where(t.name.startswith(PREFIX)).order_by(t.id)).all()
        known = {(str(row.app), str(row.name)) for row in rows}
        for row in rows:
            app, old = str(row.app), str(row.name)
            try:
                new = PREFIX + partition_of(old.removeprefix(PREFIX))[1]
            except ProtocolError:
                continue  # no client can name it any more
            if new == old:
                continue
            if (app, new) in known:
                log.warning("App %s has a second realm %s of one partition; clients get the other one", app, old)
                continue
            known.add((app, new))
            sql.execute(db.realms.update().where(t.id == row.id).values(name=new))
            if folder is not None:
                _move(checkpoint_folder(folder, app, old), checkpoint_folder(folder, app, new))


def _move(old: Path, new: Path) -> None:
    """Move a checkpoint; without it the log is replayed."""
    if old.exists() and not new.exists():
        try:
            os.replace(old, new)
        except OSError as error:
            log.warning("A checkpoint could not be moved, the log is replayed instead: %s", error)
