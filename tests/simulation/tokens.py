"""Access tokens that end, refreshing that fails for a while, users who are revoked and come back.

The client's own code asks for tokens, refreshes them and logs users out; the accounts of the server are simulated. What
must hold: nothing of a revoked user gets into the server, the session stops, and all that was written stays on the
device; who comes back goes on from there. Ends of tokens and failing refreshes delay, and lose nothing.
"""

from __future__ import annotations

import asyncio
import base64
import json
import urllib.parse
from typing import TYPE_CHECKING, Any, ClassVar

from realmframe.client.app import App as ClientApp
from realmframe.client.metadata import Metadata, UserRecord
from realmframe.client.vault import MetadataConfiguration
from realmframe.errors import AuthError, NetworkError, RealmError
from realmframe.server.engine import UNAUTHORISED, Engine
from tests.simulation.clients import App
from tests.simulation.features import Feature

if TYPE_CHECKING:
    from tests.simulation.clients import Device, Replica
    from tests.simulation.network import Link
    from tests.simulation.world import World


class TokenApp(App):
    """An app whose user's tokens end; what the client does about it is its own code."""

    access_token = ClientApp.access_token  # type: ignore[assignment]
    expel = ClientApp.expel
    _changed, _logged_in, _is_another = ClientApp._changed, ClientApp._logged_in, ClientApp._is_another

    def __init__(self, device: Device, tokens: Tokens) -> None:
        super().__init__(device)
        self.metadata: Any = tokens.users[device.user]
        self.metadata.folder = device.folder / "metadata"
        self.services.refresh = lambda token: tokens.refresh(device, token)
        self._sync, self._listeners, self._refreshing = self.sync, list[Any](), dict[str, asyncio.Lock]()


class Tokens(Feature):
    """The server's accounts, and what befalls them."""

    name: ClassVar[str] = "tokens"
    weight: ClassVar[float] = 4.0
    expected: ClassVar[tuple[type[RealmError], ...]] = (AuthError,)

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.life = self.rng.choice([15.0, 60.0, 600.0])
        #: Users on disk, shared by the processes of a machine; their file is trusted to be replaced in one step.
        self.users: dict[str, Metadata] = {}
        #: Number of each user's log-in; those before it have ended.
        self.logins: dict[str, int] = {}
        #: Who is revoked, and what the server had of their files when it had ended their connections.
        self.revoked: dict[str, dict[tuple[str, int], int] | None] = {}
        self._fails_until = 0.0

    # ---- the server's accounts

    def _token(self, user: str, kind: str, life: float) -> str:
        now = self.world.loop.time()
        claims = {"sub": user, "kind": kind, "login": self.logins[user], "iat": now, "exp": now + life}
        body = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
        return f"e30.{body}.signature"

    def _is_good(self, token: str, user: str, kind: str) -> bool:
        body = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        is_current = claims["login"] == self.logins[user] and user not in self.revoked
        return (
            is_current and claims["kind"] == kind and claims["sub"] == user and claims["exp"] > self.world.loop.time()
        )

    async def refresh(self, device: Device, token: str) -> str:
        """Answer a client that asks for an access token."""
        world = self.world
        await asyncio.sleep(self.rng.expovariate(1.0 / world.settings.latency))
        if device.is_offline or world.server.is_dead or world.loop.time() < self._fails_until:
            raise NetworkError("The token could not be refreshed.")
        is_good = self._is_good(token, device.user, "refresh")
        new = self._token(device.user, "access", self.life)
        await asyncio.sleep(self.rng.expovariate(1.0 / world.settings.latency))
        if not is_good:
            world.note(device.name, "refresh refused")
            raise AuthError("The log-in has ended.", status=401)
        world.note(device.name, "refreshed")
        return new

    def dialled(self, link: Link, url: str) -> None:
        """Refuse a connection as the server does: it is known, then looked at, then closed."""
        token = urllib.parse.parse_qs(url.partition("?")[2])["baas_at"][0]
        if not self._is_good(token, link.device.user, "access"):
            self.world.note(f"link {link.number}", "unauthorised")
            link.deliver([], UNAUTHORISED)

    # ---- devices

    def app(self, device: Device) -> App:
        """Give the device's app, whose user logged in before it was started for the first time."""
        if device.user not in self.users:
            self.users[device.user] = Metadata(device.folder / "metadata", MetadataConfiguration(mode="in_memory"))
            self._log_in(device.user)
        return TokenApp(device, self)

    def _log_in(self, user: str) -> None:
        self.logins[user] = self.logins.get(user, 0) + 1
        access, refresh = self._token(user, "access", self.life), self._token(user, "refresh", 1e9)
        record = UserRecord(user, provider="local-userpass", access_token=access, refresh_token=refresh)
        self.users[user].put(record, current=True)

    def act(self, device: Device, replica: Replica) -> None:
        """Have refreshing fail for a while, or revoke the user for a while."""
        if self.rng.random() < 0.5:
            self._fails_until = self.world.loop.time() + self.rng.expovariate(0.5 / self.life)
            self.world.note("accounts", f"refreshing fails until {self._fails_until:.3f}")
        elif device.user not in self.revoked:
            self.revoke(device)

    def revoke(self, device: Device) -> None:
        """End a user's log-in, as an administrator does."""
        user, server = device.user, self.world.server
        self.world.note("admin", f"revoke {user}")
        self.revoked[user] = None
        if not server.is_dead:
            server.engine.end_user("app", user)
            server.engine.call(lambda engine: self._ended(engine, user))
            server.wake()
        self.world.loop.call_later(
            self.rng.expovariate(1.0 / self.rng.choice([0.5, 5.0, 50.0])), self._come_back, device
        )

    def _ended(self, engine: Engine, user: str) -> None:
        if user in self.revoked:
            self.revoked[user] = _files(engine, user)

    def _come_back(self, device: Device) -> None:
        """Log in again when that is possible; while all are to come together, :meth:`calm` sees to it."""
        if device.user not in self.revoked:
            return
        if self.world.is_calm or device.is_dead or device.is_reopening or device.is_offline:
            self.world.loop.call_later(1.0, self._come_back, device)
        else:
            self._return(device)

    def _return(self, device: Device) -> None:
        self._check_silent(device.user)
        del self.revoked[device.user]
        self._log_in(device.user)
        self.world.note(device.name, "logged in again")
        for one in self._devices(device.user):
            if not one.is_dead and not one.is_reopening:
                for replica in one.replicas:
                    replica.check_lines()
                    one.run(replica.session.begin)

    def _devices(self, user: str) -> list[Device]:
        return [device for device in self.world.devices if device.user == user]

    def _check_silent(self, user: str) -> None:
        before, server = self.revoked[user], self.world.server
        if before is None or server.is_dead:
            return
        loaded = {name for name, _ in before}  # of another realm nobody knows what was in it
        for key, version in _files(server.engine, user).items():
            known = before.get(key, 0)
            is_silent = version <= known or key[0] not in loaded
            assert is_silent, f"{user} was revoked, and uploaded {known} to {version} of file {key}"

    async def calm(self) -> None:
        """The accounts answer again; who is revoked has a session that stops, and then comes back."""
        world, self._fails_until = self.world, 0.0
        device = self.rng.choice(world.devices)
        if all(other.starts for other in world.devices) and device.user not in self.revoked and self.rng.random() < 0.5:
            self.revoke(device)
        for device in world.devices:
            ends = world.loop.time() + 2_000.0
            while device.user in self.revoked and not self._has_stopped(device):
                await asyncio.sleep(1.0)
                assert world.loop.time() < ends, f"{device.user} is revoked, and the session goes on"
            if device.user in self.revoked:
                self._return(device)

    def _has_stopped(self, device: Device) -> bool:
        mine = self._devices(device.user)
        if any(one.is_dead or one.is_reopening or one.is_busy for one in mine):
            return False
        record = self.users[device.user].get(device.user)
        is_out = record is not None and record.state == "logged_out"
        return is_out and all(replica.session.state == "inactive" for one in mine for replica in one.replicas)


def _files(engine: Engine, user: str) -> dict[tuple[str, int], int]:
    """Give how much a server has of each of a user's files, in the realms that it has loaded; of file 0 nothing."""
    found = {(name, 0): 0 for _, name in engine._realms}
    for (_, name), realm in engine._realms.items():
        mine = [file for file in realm.history.files.values() if file.user == user]
        found |= {(name, file.ident): file.client_version for file in mine}
    return found
