"""Who may read and write what: partitions, and classes with Flexible Sync.

The rules are functions of the one who runs the server. They are asked in the engine's thread when a session begins (and
for classes again with each query set), and what they answer holds for that session; so they have to be quick. A
rule that raises answers no.

=============== ============================= =============================================================
mode            not allowed                   the client gets
=============== ============================= =============================================================
partition-based to read                       error 206 (PermissionDenied), its session ends
partition-based to write                      error 230 (WriteNotAllowed) at its first write, with a client
                                              reset that does not recover: what it wrote is taken back
Flexible Sync   to read a class               none of its objects, whatever it subscribes to; and it may not
                                              write to them
Flexible Sync   to write a class              error 231 (CompensatingWrite): the objects as they are here
=============== ============================= =============================================================
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from realmframe.changes import Changeset

log: Final = logging.getLogger("realmframe.server")

#: ``f(user id, partition value)``, or of a class name in place of the partition.
Rule = Callable[[str, Any], bool]


@dataclass(frozen=True, slots=True)
class Permissions:
    """Rules of a server; None allows everything.

    Parameters
    ----------
    can_read, can_write : callable, optional
        ``f(user_id, partition)``: partition-based sync. The partition is a str, int, ObjectId, UUID or None.
    can_read_class, can_write_class : callable, optional
        ``f(user_id, class_name)``: Flexible Sync.

    Examples
    --------
    >>> Permissions(can_write=lambda user, partition: partition == user)  # doctest: +SKIP
    """

    can_read: Rule | None = None
    can_write: Rule | None = None
    can_read_class: Rule | None = None
    can_write_class: Rule | None = None

    @property
    def guards_classes(self) -> bool:
        """Whether there is a rule for classes."""
        return self.can_read_class is not None or self.can_write_class is not None

    def may_read(self, user: str, partition: Any) -> bool:
        """Whether a user may read a partition."""
        return _ask(self.can_read, user, partition)

    def may_write(self, user: str, partition: Any) -> bool:
        """Whether a user may write to a partition."""
        return _ask(self.can_write, user, partition)

    def readable(self, user: str, texts: Mapping[str, str]) -> dict[str, str]:
        """Leave of a query set what a user may read."""
        return {name: text for name, text in texts.items() if _ask(self.can_read_class, user, name)}

    def forbidden(self, user: str, classes: Mapping[str, bool]) -> set[str]:
        """Give those of some classes that a user may not write to.

        The mapping says of each whether it has objects that only those may write who may read them: otherwise a key
        that is guessed or taken by chance would do to change what its writer does not see.
        """
        return {
            name
            for name, is_read in classes.items()
            if not _ask(self.can_write_class, user, name) or (is_read and not _ask(self.can_read_class, user, name))
        }


def _ask(rule: Rule | None, user: str, what: Any) -> bool:
    if rule is None:
        return True
    try:
        return bool(rule(user, what))
    except Exception:
        log.exception("A permission rule failed at %r; it counts as no", what)
        return False


def has_data(changeset: Changeset) -> bool:
    """Tell whether a changeset touches objects, not the schema alone."""
    return bool((~changeset.is_schema).any())


def classes_of(changeset: Changeset) -> dict[str, int]:
    """Give the classes whose objects a changeset touches, with their numbers in it."""
    numbers = np.unique(changeset.table[~changeset.is_schema])
    return {changeset.string(n): n for n in numbers.tolist()}


def split(changeset: Changeset, numbers: Iterable[int]) -> tuple[Changeset, Changeset]:
    """Part a changeset: all but the objects of some classes, and those."""
    out = np.isin(changeset.table, list(numbers)) & ~changeset.is_schema
    return changeset.take(np.flatnonzero(~out)), changeset.take(np.flatnonzero(out))
