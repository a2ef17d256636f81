"""How a realm is opened: what can be asked for, checked when it is asked.

Words of the SDKs are taken in both spellings (``"openLocalRealm"`` is ``"open_local_realm"``); a keyword that does not
exist is an error that names the nearest one.
"""

from __future__ import annotations

import difflib
import inspect
import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

from realmframe.client.app import App
from realmframe.client.keywords import refuse_unknown, snake
from realmframe.client.paths import RealmPath, SyncPlace, partition_name, path_for
from realmframe.client.user import User
from realmframe.errors import SchemaError, UsageError
from realmframe.model import ObjectSchema, Schema
from realmframe.realm.schema import check_mode

if TYPE_CHECKING:
    from realmframe.realm.realm import Realm
    from realmframe.realm.subscriptions import MutableSubscriptionSet

T = TypeVar("T")

OPEN_TYPES: Final = ("download_before_open", "open_immediately")
TIME_OUT_BEHAVIORS: Final = ("throw_exception", "open_local_realm")
CLIENT_RESETS: Final = (
    "recover_unsynced_changes",
    "recover_or_discard_unsynced_changes",
    "discard_unsynced_changes",
    "manual",
)
STOP_POLICIES: Final = ("after_upload", "immediately", "never")
#: Seconds that opening may take when no behaviour is configured.
DEFAULT_TIME_OUT: Final = 30.0


class _Unset:
    def __repr__(self) -> str:
        return "not given"


UNSET: Final = _Unset()


def _word(what: str, value: Any, allowed: tuple[str, ...]) -> str:
    """Check one of several words, in either spelling."""
    word = snake(value) if isinstance(value, str) else value
    if word not in allowed:
        near = difflib.get_close_matches(str(word), allowed, 1, 0.4)
        hint = f"Did you mean {near[0]!r}?" if near else f"It is one of {', '.join(map(repr, allowed))}."
        raise UsageError(f"{what} cannot be {value!r}.", hint=hint)
    return str(word)


def _seconds(what: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
        raise UsageError(f"{what} must be a number of seconds, zero or more, not {value!r}.")
    return None if math.isinf(value) else float(value)


@dataclass(frozen=True, slots=True, init=False)
class OpenRealmBehaviorConfiguration:
    """How opening waits for the server.

    Parameters
    ----------
    type : str
        ``"download_before_open"`` or ``"open_immediately"``.
    time_out : float, optional
        Seconds, zero or more; None (the default) waits for ever. Ignored by open_immediately.
    time_out_behavior : str, optional
        ``"open_local_realm"`` or ``"throw_exception"``; needed when there is a time_out.

    Raises
    ------
    UsageError
        For a word, number or keyword that does not exist, with a suggestion.
    """

    type: str
    time_out: float | None
    time_out_behavior: str

    def __init__(
        self,
        type: str = "download_before_open",  # noqa: A002 - the SDK's word
        time_out: float | None = None,
        time_out_behavior: str | None = None,
        **unknown: Any,
    ) -> None:
        what = "OpenRealmBehaviorConfiguration"
        refuse_unknown(what, unknown, ("type", "time_out", "time_out_behavior"))
        if time_out is not None and time_out_behavior is None:
            raise UsageError(
                f"{what} has a time_out but no time_out_behavior.",
                hint='Say what happens then: "open_local_realm" or "throw_exception".',
            )
        object.__setattr__(self, "type", _word(f"{what}: type", type, OPEN_TYPES))
        object.__setattr__(self, "time_out", _seconds(f"{what}: time_out", time_out))
        behavior = _word(f"{what}: time_out_behavior", time_out_behavior or "throw_exception", TIME_OUT_BEHAVIORS)
        object.__setattr__(self, "time_out_behavior", behavior)

    @property
    def opens_immediately(self) -> bool:
        """Whether nothing is waited for."""
        return self.type == "open_immediately"


DEFAULT_BEHAVIOR: Final = OpenRealmBehaviorConfiguration("download_before_open", DEFAULT_TIME_OUT, "throw_exception")


@dataclass(frozen=True, slots=True, init=False)
class ClientResetConfiguration:
    """What happens when the server no longer knows a realm's history.

    Parameters
    ----------
    mode : str
        ``"recover_unsynced_changes"`` (the default), ``"recover_or_discard_unsynced_changes"``,
        ``"discard_unsynced_changes"`` or ``"manual"``.
    on_before, on_after : callable, optional
        Called around the reset.
    on_fallback, on_manual : callable, optional
        Called when the reset has to be done by hand.
    """

    mode: str
    on_before: Callable[..., Any] | None
    on_after: Callable[..., Any] | None
    on_fallback: Callable[..., Any] | None
    on_manual: Callable[..., Any] | None

    def __init__(
        self,
        mode: str = "recover_unsynced_changes",
        on_before: Callable[..., Any] | None = None,
        on_after: Callable[..., Any] | None = None,
        on_fallback: Callable[..., Any] | None = None,
        on_manual: Callable[..., Any] | None = None,
        **unknown: Any,
    ) -> None:
        known = ("mode", "on_before", "on_after", "on_fallback", "on_manual")
        refuse_unknown("ClientResetConfiguration", unknown, known)
        object.__setattr__(self, "mode", _word("client_reset", mode, CLIENT_RESETS))
        for name, value in zip(known[1:], (on_before, on_after, on_fallback, on_manual), strict=True):
            object.__setattr__(self, name, _callable(f"client_reset: {name}", value))

    @classmethod
    def of(cls, form: str | Mapping[str, Any] | ClientResetConfiguration) -> ClientResetConfiguration:
        """Take a mode, a mapping or a configuration."""
        if isinstance(form, ClientResetConfiguration):
            return form
        return cls(form) if isinstance(form, str) else cls(**form)


def _callable(what: str, value: Any) -> Any:
    if value is not None and not callable(value):
        raise UsageError(f"{what} must be a function, not {value!r}.")
    if inspect.iscoroutinefunction(value):
        raise UsageError(
            f"{what} must be a plain function: it is called, and nobody awaits it.", hint="Leave out async."
        )
    return value


InitialSubscriptions = Callable[["MutableSubscriptionSet", "Realm"], object]


@dataclass(frozen=True, slots=True, init=False)
class SyncConfiguration:
    """How a realm syncs.

    Parameters
    ----------
    user : User
        Who is logged in.
    flexible : bool
        True for Flexible Sync.
    partition_value : str, int, ObjectId, UUID or None
        In place of `flexible`, for partition-based sync.
    initial_subscriptions : callable, optional
        ``f(subscriptions, realm)``: adds subscriptions when the realm is new. Also a mapping with ``update`` and
        ``rerun_on_open``.
    rerun_on_open : bool
        Whether it runs at every open.
    new_realm_file_behavior, existing_realm_file_behavior : OpenRealmBehaviorConfiguration or mapping, optional
        By default download_before_open within 30 s, else an error.
    cancel_waits_on_non_fatal_errors : bool
        Whether waits end with a non-fatal error once the App's `timeout` has passed.
    client_reset : str, mapping or ClientResetConfiguration
    on_error : callable, optional
        ``f(session, error)``: hears what goes wrong.
    path : str or PathLike, optional
        The same as the realm's path.
    session_stop_policy : str
        ``"after_upload"`` (the default), ``"immediately"`` or ``"never"``: when sync ends after the realm was closed.

    Raises
    ------
    UsageError
    """

    user: User
    flexible: bool
    partition_value: Any
    initial_subscriptions: InitialSubscriptions | None
    rerun_on_open: bool
    new_realm_file_behavior: OpenRealmBehaviorConfiguration
    existing_realm_file_behavior: OpenRealmBehaviorConfiguration
    cancel_waits_on_non_fatal_errors: bool
    client_reset: ClientResetConfiguration
    on_error: Callable[[Any, Exception], object] | None
    path: str | os.PathLike[str] | None
    session_stop_policy: str

    def __init__(
        self,
        user: User | None = None,
        *,
        flexible: bool | None = None,
        partition_value: Any = UNSET,
        initial_subscriptions: InitialSubscriptions | Mapping[str, Any] | None = None,
        rerun_on_open: bool = False,
        new_realm_file_behavior: OpenRealmBehaviorConfiguration | Mapping[str, Any] | None = None,
        existing_realm_file_behavior: OpenRealmBehaviorConfiguration | Mapping[str, Any] | None = None,
        cancel_waits_on_non_fatal_errors: bool = False,
        client_reset: str | Mapping[str, Any] | ClientResetConfiguration = "recover_unsynced_changes",
        on_error: Callable[[Any, Exception], object] | None = None,
        path: str | os.PathLike[str] | None = None,
        session_stop_policy: str = "after_upload",
        **unknown: Any,
    ) -> None:
        refuse_unknown("SyncConfiguration", unknown, self.__slots__)
        put = partial(object.__setattr__, self)
        put("user", _user(user))
        put("flexible", _mode(flexible, partition_value))
        put("partition_value", None if isinstance(partition_value, _Unset) else partition_value)
        if isinstance(initial_subscriptions, Mapping):
            known = ("update", "rerun_on_open")
            refuse_unknown(
                "initial_subscriptions", {k: v for k, v in initial_subscriptions.items() if k not in known}, known
            )
            rerun_on_open = bool(initial_subscriptions.get("rerun_on_open", rerun_on_open))
            initial_subscriptions = initial_subscriptions.get("update")
        if initial_subscriptions is not None and not self.flexible:
            raise UsageError("initial_subscriptions belong to Flexible Sync.", hint="Set flexible=True.")
        put("initial_subscriptions", _callable("initial_subscriptions", initial_subscriptions))
        put("rerun_on_open", bool(rerun_on_open))
        put("new_realm_file_behavior", _behavior("new_realm_file_behavior", new_realm_file_behavior))
        put("existing_realm_file_behavior", _behavior("existing_realm_file_behavior", existing_realm_file_behavior))
        if not isinstance(cancel_waits_on_non_fatal_errors, bool):
            raise UsageError("cancel_waits_on_non_fatal_errors must be True or False.")
        put("cancel_waits_on_non_fatal_errors", cancel_waits_on_non_fatal_errors)
        put("client_reset", ClientResetConfiguration.of(client_reset))
        put("on_error", _callable("on_error", on_error))
        put("path", path)
        put("session_stop_policy", _word("session_stop_policy", session_stop_policy, STOP_POLICIES))

    @property
    def place(self) -> SyncPlace:
        """What of it decides a path."""
        return SyncPlace(self.user.id, self.flexible, self.partition_value)

    def behavior(self, is_new: bool) -> OpenRealmBehaviorConfiguration:
        """Give the behaviour for a realm that is new, or was there before."""
        return self.new_realm_file_behavior if is_new else self.existing_realm_file_behavior


def _user(user: Any) -> User:
    if not isinstance(user, User):
        raise UsageError(
            f"SyncConfiguration needs a user, not {user!r}.", hint="app.log_in(...) or app.current_user gives one."
        )
    return user


def _mode(flexible: Any, partition_value: Any) -> bool:
    partitioned = not isinstance(partition_value, _Unset)
    if flexible is not None and flexible is not True:
        raise UsageError(
            f"flexible cannot be {flexible!r}.", hint="It is True, or absent with a partition_value in its place."
        )
    if bool(flexible) == partitioned:
        raise UsageError("A sync configuration has either flexible=True or a partition_value.")
    if partitioned:
        partition_name(partition_value)
    return bool(flexible)


def _behavior(name: str, form: Any) -> OpenRealmBehaviorConfiguration:
    if form is None:
        return DEFAULT_BEHAVIOR
    if isinstance(form, Mapping):
        form = OpenRealmBehaviorConfiguration(**form)
    if not isinstance(form, OpenRealmBehaviorConfiguration):
        raise UsageError(f"{name} must be an OpenRealmBehaviorConfiguration, not {form!r}.")
    return form


@dataclass(frozen=True, slots=True, init=False)
class Configuration:
    """What realm, and how.

    Parameters
    ----------
    path : str or PathLike, optional
        Absolute: exactly there. Relative: from base_file_path. Absent: see :func:`realmframe.client.path_for`.
    schema : list of ObjectSchema or dict, optional
        None adopts what the file or the server has.
    sync : SyncConfiguration or mapping, optional
        None for a local realm.
    read_only : bool
        A local realm that must exist and is never written.
    base_file_path : str or PathLike, optional
        Of a local realm; a synced one has its App's. The current working directory by default.
    schema_version : int
        Version that the server is told (Flexible Sync).
    on_first_open : callable, optional
        ``f(realm)``: called once, when a local realm was made; if it raises, the realm is not made.

    Raises
    ------
    UsageError, SchemaError
    """

    path: str | os.PathLike[str] | None
    schema: Schema | None
    sync: SyncConfiguration | None
    read_only: bool
    base_file_path: str | os.PathLike[str] | None
    schema_version: int
    on_first_open: Callable[[Any], object] | None = field(repr=False)

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        schema: Iterable[ObjectSchema | Mapping[str, Any]] | None = None,
        sync: SyncConfiguration | Mapping[str, Any] | None = None,
        read_only: bool = False,
        base_file_path: str | os.PathLike[str] | None = None,
        schema_version: int = 0,
        on_first_open: Callable[[Any], object] | None = None,
        **unknown: Any,
    ) -> None:
        refuse_unknown("Configuration", unknown, self.__slots__)
        if isinstance(sync, Mapping):
            sync = SyncConfiguration(**sync)
        if sync is not None and not isinstance(sync, SyncConfiguration):
            raise UsageError(f"sync must be a SyncConfiguration, not {sync!r}.")
        if sync is not None and sync.path is not None:
            if path is not None and os.fspath(path) != os.fspath(sync.path):
                raise UsageError(f"path is {path!r}, but sync.path is {sync.path!r}.", hint="Give one of them.")
            path = sync.path
        if sync is not None and (read_only or base_file_path is not None):
            raise UsageError(
                f"{'read_only' if read_only else 'base_file_path'} belongs to local realms.",
                hint="A synced realm has its App's base_file_path.",
            )
        if path is not None and not isinstance(path, str | os.PathLike):
            raise UsageError(f"path must be a string or a PathLike, not {path!r}.")
        put = partial(object.__setattr__, self)
        put("path", path)
        put("schema", _schema(schema))
        check_mode(self.schema or Schema(), flexible=None if sync is None else sync.flexible)
        put("sync", sync)
        put("read_only", bool(read_only))
        put("base_file_path", base_file_path)
        put("schema_version", int(schema_version))
        put("on_first_open", _callable("on_first_open", on_first_open))

    @classmethod
    def of(cls, configuration: Any = None, /, **keywords: Any) -> Configuration:
        """Take a configuration, a mapping, or keywords."""
        if configuration is None:
            return cls(**keywords)
        if keywords:
            raise UsageError("Give a Configuration or keywords, not both.")
        if isinstance(configuration, Configuration):
            return configuration
        if isinstance(configuration, Mapping):
            return cls(**configuration)
        return _no_configuration(configuration)

    @property
    def app(self) -> App | None:
        """The app of a synced realm."""
        return None if self.sync is None else self.sync.user.app

    def realm_path(self) -> RealmPath:
        """Find the realm's place, without touching the disk."""
        if self.sync is None:
            return path_for(self.path, base_file_path=self.base_file_path)
        app = self.sync.user.app
        base, is_set = app.base_file_path, app.is_base_set  # where its users are too, whatever the directory is now
        return path_for(self.path, base_file_path=base, sync=self.sync.place, is_base_set=is_set)


def _no_configuration(form: Any) -> NoReturn:
    raise UsageError(
        f"{form!r} is no Configuration.", hint="Realm.open takes keywords: Realm.open(path=..., sync=...)."
    )


def _schema(form: Any) -> Schema | None:
    if form is None or isinstance(form, Schema):
        made = form
    elif isinstance(form, ObjectSchema) or (isinstance(form, Mapping) and "name" in form):
        made = Schema([form])
    elif isinstance(form, Iterable) and not isinstance(form, str | bytes | Mapping):
        made = Schema(form)
    else:
        raise SchemaError("schema must be a list of ObjectSchema or dict.")
    if made is not None:
        made.validate()
    return made
