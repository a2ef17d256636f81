"""Widgets: the subscription panel, the sync status, the progress of an open.

A widget belongs to one realm and is made once: showing it again shows the same one, so running a cell again leaks
nothing. It listens to the realm through the bridge (throttled), and stops with :meth:`~ipywidgets.Widget.close` or when
the realm closes. Its state holds what the page shows and nothing else: no token, no user id.
"""

from __future__ import annotations

import html
import threading
import time
from collections.abc import Callable

import ipywidgets as w

from realmframe.errors import RealmError
from realmframe.jupyter.bridge import PERIOD, Bridge
from realmframe.jupyter.command import SubscriptionLine
from realmframe.jupyter.facts import SubscriptionRow, status_rows, subscription_rows, table_html
from realmframe.realm import Realm

_COLOURS = {"complete": "#2e7d32", "error": "#c62828", "superseded": "#757575"}


class _Watching:
    """Keeps a widget in step with its realm until it is closed."""

    def __init__(self, realm: Realm, bridge: Bridge, refresh: Callable[[], None]) -> None:
        self._bridge, self._refresh = bridge, refresh
        self._stop = realm.listen(lambda: bridge.post(refresh))

    def stop(self) -> None:
        """Stop listening."""
        self._stop()
        self._bridge.forget(self._refresh)


class StatusWidget(w.HTML):
    """How fresh a realm is, live."""

    def __init__(self, realm: Realm, bridge: Bridge) -> None:
        self._realm = realm
        super().__init__(value=self._text())
        self._watching = _Watching(realm, bridge, self.refresh)

    def _text(self) -> str:
        return table_html((), status_rows(self._realm))

    def refresh(self) -> None:
        """Show the newest facts."""
        if not self._realm.is_closed:
            self.value = self._text()

    def close(self) -> None:
        """Stop listening and remove the widget."""
        self._watching.stop()
        super().close()


class SubscriptionPanel(w.VBox):
    """The subscriptions of a realm with their states; add and remove them."""

    def __init__(self, realm: Realm, bridge: Bridge) -> None:
        self._realm = realm
        self._rows = w.VBox()
        self._shown: list[SubscriptionRow] | None = None
        self._line = w.Text(placeholder="[name:] Class [where QUERY]", layout=w.Layout(width="60%"))
        self._add = w.Button(description="Add", button_style="primary", icon="plus")
        self._message = w.HTML()
        super().__init__([self._rows, w.HBox([self._line, self._add]), self._message])
        self._add.on_click(lambda _button: self.add(self._line.value))
        self.refresh()
        self._watching = _Watching(realm, bridge, self.refresh)

    def add(self, text: str) -> None:
        """Add the subscription that a line describes; what is wrong with it is shown, not raised."""

        def change() -> None:
            line = SubscriptionLine.parse(text)
            with self._realm.subscriptions.update(wait=False) as subscriptions:
                subscriptions.add(line.class_name, line.query, name=line.name)
            self._line.value = ""

        self._try(change)

    def remove(self, row: SubscriptionRow) -> None:
        """Remove one subscription."""

        def change() -> None:
            with self._realm.subscriptions.update(wait=False) as subscriptions:
                if row.name:
                    subscriptions.remove(row.name)
                else:
                    subscriptions.remove_query(row.class_name, row.query)

        self._try(change)

    def _try(self, change: Callable[[], None]) -> None:
        try:
            change()
        except RealmError as error:
            self._message.value = f"<span style='color:#c62828'>{html.escape(str(error))}</span>"
        else:
            self._message.value = ""
        self.refresh()

    def refresh(self) -> None:
        """Show the newest state; rows are made anew only when they changed."""
        if self._realm.is_closed:
            return
        rows = subscription_rows(self._realm)
        if rows == self._shown:
            return
        self._shown = rows
        old = list(self._rows.children)
        self._rows.children = [self._row(row) for row in rows] or [w.HTML("<i>no subscriptions</i>")]
        for child in old:
            _close_tree(child)

    def _row(self, row: SubscriptionRow) -> w.HBox:
        colour = _COLOURS.get(row.state, "#b26a00")
        state = f"<b style='color:{colour}'>●</b> {html.escape(row.state)}"
        query = html.escape(row.query)
        remove = w.Button(icon="trash", tooltip="Remove", layout=w.Layout(width="3em"))
        remove.on_click(lambda _button: self.remove(row))
        return w.HBox(
            [
                w.HTML(state, layout=w.Layout(width="9em")),
                w.HTML(f"<b>{html.escape(row.name)}</b>", layout=w.Layout(width="9em")),
                w.HTML(html.escape(row.class_name), layout=w.Layout(width="8em")),
                w.HTML(f"<code>{query}</code>", layout=w.Layout(width="50%")),
                remove,
            ]
        )

    def close(self) -> None:
        """Stop listening and remove the widget with all its parts."""
        self._watching.stop()
        for child in self.children:
            _close_tree(child)
        super().close()


def _close_tree(widget: w.Widget) -> None:
    for child in getattr(widget, "children", ()):
        _close_tree(child)
    widget.close()


class OpenProgress(w.HBox):
    """Progress of an open, with a button that opens at once with what is there."""

    def __init__(self) -> None:
        self._bar = w.FloatProgress(min=0.0, max=1.0, layout=w.Layout(width="16em"))
        self._label = w.HTML("connecting")
        self._button = w.Button(description="Open now", tooltip="Open with what is on disk; syncing goes on")
        self.wanted = threading.Event()
        self._button.on_click(lambda _button: self.wanted.set())
        super().__init__([self._bar, self._label, self._button])
        self._begun = self._drawn = time.monotonic()

    def show(self, phase: str, fraction: float, detail: str = "", *, force: bool = False) -> None:
        """Draw a step, at most ten times a second."""
        now = time.monotonic()
        if not force and now - self._drawn < PERIOD:
            return
        self._drawn = now
        self._bar.value = max(self._bar.value, min(1.0, fraction))
        text = f"{phase} · {now - self._begun:.1f} s" + (f" · {detail}" if detail else "")
        self._label.value = html.escape(text)

    def finish(self, text: str, *, good: bool) -> None:
        """Leave a static line behind."""
        self._bar.value = 1.0 if good else self._bar.value
        self._bar.bar_style = "success" if good else "warning"
        self._label.value = html.escape(text)
        self.children = [self._bar, self._label]
        self._button.close()
