"""Client reset: a realm whose history the server does not know any more begins anew, in the same place.

Steps
-----
1. A second session downloads a fresh copy into ``fresh/`` below the realm's folder, under a number of its own, with the
   subscriptions that are in force.
2. Local changes that were not uploaded are replayed on it, or dropped, as the mode says.
3. One commit turns the realm into the result, and gives it the fresh copy's number, progress and what is still to be
   uploaded: live frames just move on, and a process that is killed at any step leaves the realm either as it was, or
   reset. Other processes cannot commit meanwhile.
4. The session binds again. The reset counts as a success when everything was downloaded and uploaded once; until then
   another one of the same kind is taken for a loop and fails, or discards (see :data:`REPEATED`).

Where the realm cannot be reset, the app is told by a ClientResetError, and the files are moved aside when the realm is
closed. Classes, properties and subscriptions are kept even when changes are discarded: they are no data.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import secrets
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from realmframe.client.lost import quarantined
from realmframe.client.migration import MIGRATION, Migration, covering
from realmframe.client.subscriptions import StoredSubscriptions
from realmframe.errors import ClientResetError, MergeError, RealmError, StorageError, UsageError
from realmframe.session.subscriptions import ACTIVE_STATES, State, SubscriptionStore
from realmframe.store import (
    Lost,
    RealmStore,
    Recovered,
    Reset,
    Snapshot,
    contradiction,
    difference_changeset,
    keep_schema,
    recover,
    schema_changeset,
    written,
)
from realmframe.store import State as StoreState
from realmframe.wire import Action

if TYPE_CHECKING:
    from realmframe.client.sync import SyncSession

log: Final = logging.getLogger("realmframe.client")

MANUAL: Final = "manual"
DISCARD: Final = "discard_unsynced_changes"
RECOVER: Final = "recover_unsynced_changes"
RECOVER_OR_DISCARD: Final = "recover_or_discard_unsynced_changes"
#: Folder of the fresh copy, in the realm's own.
FRESH: Final = "fresh"

_LOOP: Final = "The client reset before this one did not succeed either"
#: (what the unfinished reset before did, mode of this one) to what this one does; None fails, to end a loop of resets.
REPEATED: Final[Mapping[tuple[str, str], str | None]] = {
    (DISCARD, DISCARD): None,
    (DISCARD, RECOVER): None,
    (DISCARD, RECOVER_OR_DISCARD): None,
    (RECOVER, RECOVER): None,
    (RECOVER, RECOVER_OR_DISCARD): DISCARD,
    (RECOVER, DISCARD): DISCARD,
}


@dataclass(frozen=True, slots=True)
class ResetOptions:
    """What happens when the server asks for a reset.

    Attributes
    ----------
    mode : str
        ``none`` is the fresh copy's own: it fails.
    before : callable, optional
        ``f(snapshot)``, before the commit; what it raises ends the reset.
    after : callable, optional
        ``f(old snapshot)``, after it.
    on_fallback, on_manual : callable, optional
        ``f(session, path)``: the reset is left to the app; where the files will be.
    """

    mode: str = RECOVER
    before: Callable[[Snapshot], object] | None = None
    after: Callable[[Snapshot], object] | None = None
    on_fallback: Callable[..., object] | None = None
    on_manual: Callable[..., object] | None = None


@dataclass(frozen=True, slots=True)
class ResetOutcome:
    """How a reset went.

    Attributes
    ----------
    recovered : bool
        Whether local changes were recovered, else discarded.
    lost : int
        Objects with changes that were lost; ``realm.quarantine()`` has them.
    copy : str or None
        Where a copy of the realm as it was is, if something was discarded.
    """

    recovered: bool
    lost: int = 0
    copy: str | None = None


def mode_of(mode: str, action: str, previous: Mapping[str, Any] | None) -> str:
    """Decide what a reset does.

    Parameters
    ----------
    mode : str
        As configured.
    action : str
        What the server asks for.
    previous : mapping or None
        ``mode`` and ``action`` of a reset before that is not known to have succeeded.

    Raises
    ------
    ClientResetError
        If this would be a loop, or recovery is asked for and not allowed.
    """
    if previous is not None and previous["action"] == action:
        found = REPEATED[previous["mode"], mode]
        if found is None:
            raise ClientResetError(f"{_LOOP}.", action=action, is_fatal=True)
        mode = found
    if action == Action.CLIENT_RESET_NO_RECOVERY:
        if mode == RECOVER:
            text = "The server does not permit to recover what was not uploaded."
            raise ClientResetError(text, action=action, is_fatal=True)
        mode = DISCARD
    return mode


def recovery_path(session: SyncSession) -> Path:
    """Name a place for the realm as it was: ``mongodb-realm/<app>/recovered-realms/recovered_realm-...``."""
    stamp = dt.datetime.now(dt.UTC).strftime("%Y%m%d-%H%M%S")
    folder = session.app.metadata.folder / "recovered-realms"
    return Path(folder / f"recovered_realm-{stamp}-{secrets.token_hex(3).upper()}")


def carry_out_file_action(path: Path, action: Mapping[str, Any]) -> bool:
    """Delete a realm's files or move them aside; False if another process has them open.

    Parameters
    ----------
    path : Path
    action : mapping
        ``action`` (``delete`` or ``backup``) and ``path``, where to.
    """
    try:
        if action["action"] == "backup":
            RealmStore.move(path, action["path"])
        else:
            RealmStore.delete(path)
    except (UsageError, StorageError) as fault:
        log.warning("realm %s: %s; it is tried again at the next open", path.name, fault.message)
        return False
    return True


class ClientReset:
    """One reset of one session.

    Parameters
    ----------
    session : SyncSession
    error : ClientResetError
        What the server said.
    migration : Migration, optional
        To Flexible Sync; see :mod:`.migration`.
    """

    def __init__(self, session: SyncSession, error: ClientResetError, migration: Migration | None = None) -> None:
        self.session, self.error, self.migration = session, error, migration
        self._reverts = error.action == Action.REVERT_TO_PBS
        self.options = session.options.client_reset
        self._folder = session.store.path / FRESH
        #: Whether it is done, and what the server says from now on is about its result.
        self.is_bound_again = False

    async def run(self) -> None:
        """Do it; what goes wrong ends the session with a ClientResetError."""
        session = self.session
        await session.detach()
        if self.options.mode == "none":
            session.give_up(self.error, None)
            return
        if self.options.mode == MANUAL and not self._moves:
            self._leave_to_app(self.error.message, self.options.on_manual)
            return
        try:
            old, outcome = await self._reset()
        except asyncio.CancelledError:
            raise
        except Exception as fault:
            log.info("realm %s: the client reset failed: %r", session.store.path.name, fault)
            said = fault.message if isinstance(fault, RealmError) else f"{fault!r}"
            self._leave_to_app(f"{self.error.message} It failed: {said}", self.options.on_fallback, fault)
            return
        finally:
            await asyncio.to_thread(shutil.rmtree, self._folder, True)
        session.rebind(outcome)
        self.is_bound_again = True
        if self.options.after is not None:
            try:
                await asyncio.to_thread(self.options.after, old)
            except Exception:
                log.exception("realm %s: on_after of the client reset failed", session.store.path.name)

    @property
    def _moves(self) -> bool:
        """Whether the realm syncs in another way afterwards."""
        return self.migration is not None or self._reverts

    def _leave_to_app(self, text: str, callback: Callable[..., object] | None, cause: Exception | None = None) -> None:
        known = self.session.store.extra.get("file_action") or {}
        # Another process that has the realm open may have told its app of a place already.
        where = known["path"] if known.get("action") == "backup" else str(recovery_path(self.session))
        self.session.store.set_extra(file_action={"action": "backup", "path": where})
        said = self.error
        error = ClientResetError(
            text,
            code=said.code,
            action=said.action,
            is_fatal=True,
            log_url=said.log_url,
            hint=f"When the realm is closed its files are moved to {where}; the next open begins anew.",
        )
        error.recovery_path, error.__cause__ = where, cause
        self.session.give_up(error, callback)

    async def _reset(self) -> tuple[Snapshot, ResetOutcome]:
        store = self.session.store
        configured = RECOVER if self.options.mode == MANUAL else self.options.mode
        mode = mode_of(configured, self.error.action, store.extra.get("pending_reset"))
        await asyncio.to_thread(shutil.rmtree, self._folder, True)
        fresh = await asyncio.to_thread(RealmStore.open, self._folder, owner=store.owner)
        try:
            await self._download(fresh)
            old = store.snapshot
            if self.options.before is not None:
                await asyncio.to_thread(self.options.before, old)
            # A commit that has begun is waited for, also when the session ends meanwhile.
            work = asyncio.ensure_future(asyncio.to_thread(self._commit, fresh, mode))
            try:
                return old, await asyncio.shield(work)
            except asyncio.CancelledError:
                await asyncio.wait({work})
                raise
        finally:
            fresh.close()

    async def _download(self, fresh: RealmStore) -> None:
        """Fill the fresh copy."""
        session = self.session
        subscriptions = StoredSubscriptions(fresh)
        if session.options.flexible and not self._moves:
            copy = subscriptions.sets.latest.update()
            for one in session.subscriptions.sets.active:
                copy.add(one.object_class, one.query, new_id=one.id, now=one.created_at, name=one.name)
            subscriptions.commit(copy)
        options = replace(
            session.options,
            flexible=session.options.flexible != self._moves,
            migrated_partition=None,
            client_reset=ResetOptions("none"),
            session_reason=1,
            may_upload=False,
            cancel_waits=False,
            on_error=None,
        )
        downloading = type(session)(session.app, fresh, subscriptions, options)
        downloading.begin()
        try:
            if options.flexible and not self._moves:
                await downloading.wait_subscriptions()
            await downloading.wait_download()
            if self.migration is not None:  # the classes are known now
                covered = covering(subscriptions.latest, fresh.snapshot.schema, self.migration.query)
                if covered is not None:
                    subscriptions.commit(covered)
                    downloading.binding.look()
                    await downloading.wait_subscriptions()
                    await downloading.wait_download()
        finally:
            await downloading.end()

    def _commit(self, fresh: RealmStore, mode: str) -> ResetOutcome:
        """Turn the realm into the fresh copy with what is recovered, in one commit."""
        session, outcomes = self.session, list[ResetOutcome]()

        def make(state: StoreState) -> Reset:
            reset, outcome = self._plan(state, fresh, mode)
            outcomes.append(outcome)
            return reset

        with session.commit_lock:
            session.store.reset(make)
        return outcomes[0]

    def _plan(self, state: StoreState, fresh: RealmStore, mode: str) -> tuple[Reset, ResetOutcome]:
        file, progress = fresh.file, fresh.progress
        if file is None:
            raise StorageError("The fresh copy got no number from the server.", path=str(fresh.path))
        pending = list(state.pending.after(state.progress.upload_client_version))
        base = progress.download_server_version
        found, did_recover = None, mode != DISCARD
        if did_recover:
            try:
                found = recover(fresh.snapshot, state.snapshot, pending, base)
                _check_schema(state.snapshot, found.snapshot)
            except MergeError:
                if mode != RECOVER_OR_DISCARD:
                    raise
                found, did_recover = None, False
        if found is None:
            found = self._discarded(state, fresh, pending, base)
        copy = None
        if found.lost and not did_recover:
            copy = str(recovery_path(self.session))
            self.session.store.copy_to(copy)
        tracked = {"mode": RECOVER if did_recover else DISCARD, "action": self.error.action, "when": time.time()}
        reset = Reset(
            difference_changeset(state.snapshot, found.snapshot),
            file,
            replace(progress, download_client_version=0, upload_client_version=0, upload_server_version=0),
            found.changes,
            self._subscriptions(state, fresh),
            quarantined(found.lost, copy),
            {"pending_reset": tracked} | self._moved(),
        )
        return reset, ResetOutcome(did_recover, len(found.lost), copy)

    def _subscriptions(self, state: StoreState, fresh: RealmStore) -> Any:
        """Give the sets after it: what was in force is complete, what is newer is sent again."""
        stored = state.subscriptions
        if self._reverts:
            return []
        if self.migration is not None:
            before = SubscriptionStore.from_json(stored or ())
            now = StoredSubscriptions(fresh).latest
            version = before.latest.version + 1
            made = replace(now, version=version, state=State.COMPLETE, snapshot_version=state.snapshot.version + 1)
            return SubscriptionStore([made]).to_json()
        if stored is None:
            return None
        return [{**s, "state": str(State.COMPLETE)} if s["state"] in ACTIVE_STATES else s for s in stored]

    def _moved(self) -> dict[str, Any]:
        if not self._moves:
            return {}
        return {MIGRATION: None if self.migration is None else self.migration.to_json()}

    def _discarded(self, state: StoreState, fresh: RealmStore, pending: list[Any], base: int) -> Recovered:
        found = keep_schema(fresh.snapshot, pending, base)
        _check_schema(state.snapshot, found.snapshot)
        reason = "the server had this client begin anew, and changes that were not uploaded were discarded"
        lost: list[Lost] = written(state.snapshot, found.snapshot, pending, reason)
        return replace(found, lost=lost)


def _check_schema(old: Snapshot, new: Snapshot) -> None:
    """Refuse to take away, or to turn into something else, what the app's schema may have.

    Raises
    ------
    MergeError
    """
    for name, cls in old.schema.items():
        known = new.schema.get(name)
        gone = [n for n in cls.properties if known is None or n not in known.properties]
        if known is None or gone:
            what = f"the class {name}" if known is None else f"{name}.{gone[0]}"
            raise MergeError(f"The server does not have {what} any more, which cannot be taken away here.")
    found = contradiction(schema_changeset(new.schema), old.schema)
    if found is not None:
        raise MergeError(f"{found.name}: the schema here says {found.have}, but the server has {found.said}.")


__all__ = ["REPEATED", "ClientReset", "ResetOptions", "ResetOutcome", "carry_out_file_action", "mode_of"]
