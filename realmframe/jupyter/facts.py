"""What the notebook says about a realm: plain rows and numbers, with no token in them."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from realmframe.realm import Realm


@dataclass(frozen=True, slots=True)
class SubscriptionRow:
    """One subscription as the panel shows it."""

    name: str
    class_name: str
    query: str
    state: str


def subscription_rows(realm: Realm) -> list[SubscriptionRow]:
    """List the realm's subscriptions with the state of their set."""
    state = str(realm.subscriptions.state)
    return [SubscriptionRow(s.name or "", s.class_name, s.query.strip(), state) for s in realm.subscriptions]


def status_rows(realm: Realm) -> list[tuple[str, str]]:
    """Say how fresh a realm is, in pairs of words."""
    status = realm.status()
    rows = [("realm", realm.path.name), ("version", str(status.version))]
    if status.synced:
        session = realm.sync_session
        followed = session.followed
        seen = f"{status.as_of:%Y-%m-%d %H:%M:%S} UTC" if status.as_of else "never"
        rows += [
            ("connection", f"{followed.connection} (by another process)" if followed else session.connection_state),
            ("session", str(session.state)),
            ("in step with the server", seen),
            ("freshness", "stale" if status.is_stale else "current"),
            ("pending writes", str(status.pending_writes)),
            ("subscriptions", str(realm.subscriptions.state)),
        ]
    names = [f"{name} ({len(realm.snapshot.table(name)):,})" for name in realm.frames]
    return [*rows, ("classes", ", ".join(names) or "none")]


def table_html(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Make a small HTML table; every cell is escaped."""
    cells = "".join(f"<th style='text-align:left'>{html.escape(h)}</th>" for h in head)
    lines = [f"<tr>{cells}</tr>"] if head else []
    for row in rows:
        lines.append("<tr>" + "".join(f"<td style='text-align:left'>{html.escape(c)}</td>" for c in row) + "</tr>")
    return f"<table>{''.join(lines)}</table>"


def table_text(rows: Iterable[Sequence[str]]) -> str:
    """Make the same table for a terminal."""
    listed = [list(row) for row in rows]
    if not listed:
        return "(none)"
    widths = [max(len(row[i]) for row in listed) for i in range(len(listed[0]))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in listed)


class Shown:
    """Something to display: HTML for a notebook, text for a terminal, and a static picture in a saved notebook."""

    def __init__(self, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        self.head = tuple(head)
        self.rows = [tuple(row) for row in rows]

    def _repr_html_(self) -> str:
        return table_html(self.head, self.rows)

    def __repr__(self) -> str:
        return table_text([self.head, *self.rows] if self.head else self.rows)
