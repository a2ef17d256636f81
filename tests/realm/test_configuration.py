"""What can be asked for when a realm is opened, and what each mistake is told."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import pytest

import realmframe as rf
from realmframe.client import User
from realmframe.errors import SchemaError, SchemaMismatchError, UsageError
from realmframe.model import Schema
from realmframe.realm.schema import check_schema


@pytest.fixture
def user(tmp_path: Path) -> User:
    """Give a user of an app whose server does not exist: nothing here needs one."""
    return rf.App("a-1", base_url="http://127.0.0.1:9", base_file_path=tmp_path).user("U")


def test_default_behaviour_is_the_sdks(user: User) -> None:
    """Without a behaviour: download_before_open, 30 s, throw_exception."""
    sync = rf.SyncConfiguration(user, flexible=True)
    for behavior in (sync.new_realm_file_behavior, sync.existing_realm_file_behavior):
        assert (behavior.type, behavior.time_out, behavior.time_out_behavior) == (
            "download_before_open",
            30.0,
            "throw_exception",
        )


def test_every_other_default_is_the_sdks(user: User) -> None:
    """Waits go on, resets recover, sessions end after the upload, initial subscriptions run once."""
    sync = rf.SyncConfiguration(user, flexible=True)
    assert sync.cancel_waits_on_non_fatal_errors is False
    assert sync.client_reset == rf.ClientResetConfiguration()
    assert sync.client_reset.mode == "recover_unsynced_changes"
    assert (sync.session_stop_policy, sync.rerun_on_open, sync.initial_subscriptions) == ("after_upload", False, None)
    made = rf.Configuration(sync=sync)
    assert (made.read_only, made.schema_version, made.path, made.schema) == (False, 0, None, None)


def test_new_and_existing_files_each_have_their_behaviour(user: User) -> None:
    """What is said of one is not taken for the other, whose default stays."""
    for name, is_new in (("new_realm_file_behavior", True), ("existing_realm_file_behavior", False)):
        sync = rf.SyncConfiguration(user, flexible=True, **{name: {"type": "open_immediately"}})
        assert sync.behavior(is_new).opens_immediately
        assert sync.behavior(not is_new).time_out == 30.0


@pytest.mark.parametrize("given", [True, False])
def test_initial_subscriptions_as_a_mapping(user: User, given: bool) -> None:
    """The SDKs' form says whether they run again, and wins over the keyword."""
    form = {"update": print, "rerun_on_open": given}
    sync = rf.SyncConfiguration(user, flexible=True, initial_subscriptions=form, rerun_on_open=not given)
    assert (sync.initial_subscriptions, sync.rerun_on_open) == (print, given)
    sync = rf.SyncConfiguration(user, flexible=True, initial_subscriptions={"update": print}, rerun_on_open=given)
    assert sync.rerun_on_open is given


@pytest.mark.parametrize("word", ["openImmediately", "open_immediately"])
def test_both_spellings_are_taken(word: str) -> None:
    """The SDK's words are taken in camelCase and snake_case."""
    made = rf.OpenRealmBehaviorConfiguration(type=word, time_out=1, time_out_behavior="openLocalRealm")
    assert (made.type, made.time_out, made.time_out_behavior) == ("open_immediately", 1.0, "open_local_realm")


def test_a_behaviour_without_time_out_waits_for_ever() -> None:
    """The 30 s default does not merge into a behaviour that was given; infinity is no limit either."""
    made = rf.OpenRealmBehaviorConfiguration(time_out=float("inf"), time_out_behavior="throw_exception")
    assert made.time_out is None
    assert rf.OpenRealmBehaviorConfiguration(type="download_before_open").time_out is None


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"type": "open_imediately"}, "open_immediately"),
    ({"type": None}, "download_before_open"),
    ({"timeOut": 5}, "time_out"),
    ({"time_out": 5}, "time_out_behavior"),
    ({"time_out": -1, "time_out_behavior": "open_local_realm"}, "zero or more"),
    ({"time_out": "5", "time_out_behavior": "open_local_realm"}, "number of seconds"),
    ({"time_out": True, "time_out_behavior": "open_local_realm"}, "number of seconds"),
    ({"time_out": float("nan"), "time_out_behavior": "open_local_realm"}, "number of seconds"),
    ({"time_out": 5, "time_out_behavior": "openLocal"}, "open_local_realm"),
]


@pytest.mark.parametrize(("keywords", "text"), MISTAKES, ids=[str(m[0]) for m in MISTAKES])
def test_mistakes_in_a_behaviour(keywords: dict[str, Any], text: str) -> None:
    """Each mistake is refused with what was meant."""
    with pytest.raises(UsageError, match=text):
        rf.OpenRealmBehaviorConfiguration(**keywords)


SYNC_MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({}, "either flexible=True or a partition_value"),
    ({"flexible": True, "partition_value": "x"}, "either"),
    ({"flexible": False}, "True"),
    ({"flexible": "yes"}, "True"),
    ({"partition_value": 1.5}, "string, an integer"),
    ({"partition_value": True}, "string, an integer"),
    ({"flexible": True, "cancelWaitsOnNonFatalError": True}, "cancel_waits_on_non_fatal_errors"),
    ({"flexible": True, "cancel_wait_on_non_fatal_error": True}, "cancel_waits_on_non_fatal_errors"),
    ({"flexible": True, "cancel_waits_on_non_fatal_errors": 1}, "True or False"),
    ({"flexible": True, "client_reset": "recover"}, "recover"),
    ({"flexible": True, "on_error": 5}, "function"),
    ({"flexible": True, "new_realm_file_behavior": "open_immediately"}, "OpenRealmBehaviorConfiguration"),
    ({"flexible": True, "initial_subscriptions": 5}, "function"),
    ({"partition_value": "x", "initial_subscriptions": print}, "Flexible Sync"),
    ({"flexible": True, "session_stop_policy": "later"}, "after_upload"),
]


@pytest.mark.parametrize(("keywords", "text"), SYNC_MISTAKES, ids=[str(list(m[0].items())) for m in SYNC_MISTAKES])
def test_mistakes_in_a_sync_configuration(user: User, keywords: dict[str, Any], text: str) -> None:
    """Each mistake is refused with what was meant."""
    with pytest.raises(UsageError, match=text):
        rf.SyncConfiguration(user, **keywords)


def test_no_user_is_refused() -> None:
    """A sync configuration says how to get a user."""
    with pytest.raises(UsageError, match="log_in"):
        rf.SyncConfiguration(None, flexible=True)


@pytest.mark.parametrize("value", ["x", 42, None, uuid.UUID(int=1), rf.ObjectId(bytes(12))])
def test_partition_values(user: User, value: Any) -> None:
    """Strings, integers, ObjectIds, UUIDs and null are partitions."""
    assert rf.SyncConfiguration(user, partition_value=value).partition_value == value


def test_one_path_in_two_places(user: User) -> None:
    """sync.path means the realm's path; two that differ are an error."""
    sync = rf.SyncConfiguration(user, flexible=True, path="a.realm")
    assert rf.Configuration(sync=sync).path == "a.realm"
    assert rf.Configuration(path="a.realm", sync=sync).path == "a.realm"
    with pytest.raises(UsageError, match=r"sync\.path"):
        rf.Configuration(path="b.realm", sync=sync)


@pytest.mark.parametrize("keywords", [{"read_only": True}, {"base_file_path": "x"}])
def test_what_belongs_to_local_realms(user: User, keywords: dict[str, Any]) -> None:
    """A synced realm is written to, and is where its App's realms are."""
    with pytest.raises(UsageError, match="belongs to local realms"):
        rf.Configuration(sync=rf.SyncConfiguration(user, flexible=True), **keywords)


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        ({"asymmetric": True}, "asymmetric, but the file has it as toplevel"),
        ({"primaryKey": "key"}, "primary key is 'key', but the file has '_id'"),
        ({"properties": {"_id": "int", "key": "string"}}, r"A\.key: the schema says string, but the file has int"),
    ],
)
def test_what_a_class_keeps(wanted: dict[str, Any], text: str) -> None:
    """Its kind, its primary key, and the type of each property; it may get new ones."""
    have = {"name": "A", "primaryKey": "_id", "properties": {"_id": "int", "key": "int"}}
    with pytest.raises(SchemaMismatchError, match=text):
        check_schema(Schema([{**have, **wanted}]), Schema([have]))
    check_schema(Schema([{**have, "properties": {"_id": "int", "new": "int"}}, {**have, "name": "B"}]), Schema([have]))


def test_path_for_touches_nothing(user: User, tmp_path: Path) -> None:
    """Realm.path_for and Realm.exists say where a realm is without making anything."""
    sync = rf.SyncConfiguration(user, flexible=True)
    found = rf.Realm.path_for(sync=sync)
    assert found.path == tmp_path / "flx_sync_default_U.realm"
    assert rf.Realm.path_for(path="sub/a.realm", sync=sync).path == tmp_path / "sub" / "a.realm"
    assert not rf.Realm.exists(path="sub/a.realm", sync=sync)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("keywords", "error"),
    [
        ({"pth": "x"}, UsageError),
        ({"path": 5}, UsageError),
        ({"schema": "Flight"}, SchemaError),
        ({"schema": [{"name": "A", "properties": {"b": "B?"}}]}, SchemaError),
        ({"sync": 5}, UsageError),
    ],
)
def test_mistakes_in_a_configuration(keywords: dict[str, Any], error: type[Exception]) -> None:
    """Each mistake is refused when the configuration is made."""
    with pytest.raises(error):
        rf.Configuration(**keywords)
