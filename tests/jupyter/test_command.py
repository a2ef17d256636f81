"""The grammar of %realm: rows of what is typed and the command that it means."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from realmframe.errors import UsageError
from realmframe.jupyter import command as c

ROWS = [
    ("connect http://127.0.0.1:9090 --app flights", None, c.Connect("http://127.0.0.1:9090", "flights")),
    ("connect http://h --app a --base-path d --timeout 2m", None, c.Connect("http://h", "a", "d", 120.0)),
    ("login --anonymous", None, c.Login("anonymous")),
    ("login --email ann@example.com", None, c.Login("email", "ann@example.com")),
    ("login --email a@b.c --password-env P --register", None, c.Login("email", "a@b.c", "P", True)),
    ("login --api-key-env KEY", None, c.Login("api-key", secret_env="KEY")),
    ("login --jwt-env TOKEN", None, c.Login("jwt", secret_env="TOKEN")),
    ("open", None, c.Open()),
    ("open flights.realm --timeout 10s --on-timeout raise", None, c.Open("flights.realm", 10.0, "raise")),
    ("open f --timeout never --immediately --as other", None, c.Open("f", None, immediately=True, name="other")),
    ("open 'my file.realm' --local", None, c.Open("my file.realm", local=True)),
    ("open p --partition part-1", None, c.Open("p", partition="part-1")),
    (
        "open f.realm",
        '# late ones\nlate_jfk: Flight where origin == "JFK" and dep_delay > 60\n\nAirport\n',
        c.Open(
            "f.realm",
            subscriptions=(
                c.SubscriptionLine("Flight", 'origin == "JFK" and dep_delay > 60', "late_jfk"),
                c.SubscriptionLine("Airport"),
            ),
        ),
    ),
    ("subscribe Plane", None, c.Subscribe(c.SubscriptionLine("Plane"))),
    ("subscribe big: Plane where seats > 300", None, c.Subscribe(c.SubscriptionLine("Plane", "seats > 300", "big"))),
    ("subscribe --timeout 5s Plane", None, c.Subscribe(c.SubscriptionLine("Plane"), 5.0)),
    ("query Plane where model == 'A:B'", None, c.Query(c.SubscriptionLine("Plane", "model == 'A:B'"))),
    ("unsubscribe big", None, c.Unsubscribe("big")),
    ("history Plane", None, c.History("Plane")),
    ("write", "tx.delete('Plane', 'seats == 0')", c.Write("tx.delete('Plane', 'seats == 0')")),
    ("sql --into busy", "select 1", c.Sql("select 1", "busy")),
    ("status", None, c.Simple("status")),
    ("", None, c.Simple("help")),
]


@pytest.mark.parametrize(("line", "cell", "expected"), ROWS, ids=lambda v: str(v)[:40])
def test_row(line: str, cell: str | None, expected: c.Command) -> None:
    """Each line means exactly one command."""
    assert c.parse(line, cell) == expected


@pytest.mark.parametrize(
    ("line", "fragment"),
    [
        ("fly", "has no command 'fly'"),
        ("connect http://h", "--app"),
        ("login", "required"),
        ("login --anonymous --email a", "not allowed"),
        ("login --anonymous --register", "--email"),
        ("open --timeout soon", "no duration"),
        ("open --as 2x", "no Python name"),
        ("open 'unclosed", "quotation"),
        ("status now", "no arguments"),
        ("subscribe", "no subscription"),
        ("subscribe a b c", "no subscription"),
        ("unsubscribe", "needs the name"),
        ("write", "needs a body"),
        ("open --colour red", "colour"),
    ],
)
def test_refused(line: str, fragment: str) -> None:
    """What cannot be read is one error that says what is wrong."""
    with pytest.raises(UsageError, match=fragment):
        c.parse(line)


@given(st.text(max_size=80), st.none() | st.text(max_size=80))
def test_any_text(line: str, cell: str | None) -> None:
    """Any text is a command or a usage error, never anything else."""
    try:
        command: c.Command | UsageError = c.parse(line, cell)
    except UsageError as error:
        command = error
    assert str(command)
