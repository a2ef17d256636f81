"""Tokens of the server: signed, of one kind, and good for as long as was asked for."""

from __future__ import annotations

import time

import pytest

from realmframe.server.tokens import Tokens

from .conftest import claims_of

NAMES = ("app", "user", "login", "device")


@pytest.mark.parametrize("part", [0.0, 0.001, 0.5, 0.999])
def test_a_token_lives_as_long_as_was_asked_for(monkeypatch: pytest.MonkeyPatch, part: float) -> None:
    """Tokens say whole seconds; wherever in a second one is made, it does not end early, and less than one late."""
    now = 1_800_000_000.0 + part
    monkeypatch.setattr(time, "time", lambda: now)
    tokens = Tokens(b"k" * 32, 1)
    token = tokens.issue("access", *NAMES)
    claims = claims_of(token)
    assert claims["iat"] <= now
    assert now + 1 <= claims["exp"] < now + 2
    for later, is_good in ((0.0, True), (0.999, True), (2.0, False)):
        monkeypatch.setattr(time, "time", lambda later=later: now + later)
        assert (tokens.check(token, "access") is not None) == is_good


def test_what_is_no_token_of_that_kind() -> None:
    """Another kind, another key, a changed letter and anything else are refused alike."""
    tokens = Tokens(b"k" * 32)
    token = tokens.issue("access", *NAMES)
    assert tokens.check(token, "access") is not None
    head, body, signature = token.split(".")
    changed = ("A" if signature[0] != "A" else "B") + signature[1:]
    for wrong in ("", "a.b.c", f"{head}.{body}.{changed}", Tokens(b"l" * 32).issue("access", *NAMES), "x" * 20_000):
        assert tokens.check(wrong, "access") is None
    assert tokens.check(token, "refresh") is None


def test_the_key_does_not_show() -> None:
    """Whoever prints what makes tokens cannot make them."""
    assert repr(Tokens(b"k" * 32)) == "Tokens(<key>)"
