"""What a client reads out of messages of the server, and the rules that they have to keep.

The rules of DOWNLOAD's versions are checked by the receiver and, before it sends one, by the sender.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from realmframe.errors import ProtocolError, RemoteProtocolError
from realmframe.session.events import CompensatingWrites, FollowUp, SessionError
from realmframe.session.progress import Progress
from realmframe.session.rules import ACTION_RULES, SCHEMA_VERSION_CHANGED, UNKNOWN_ACTION, error_name
from realmframe.wire import Download, primary_key_from_text


def check_progress(
    before: Progress,
    new: Download | Progress,
    newest_client_version: int,
    error: type[ProtocolError] = RemoteProtocolError,
) -> None:
    """Check a DOWNLOAD's numbers against those before it.

    Parameters
    ----------
    before : Progress
    new : Download or Progress
    newest_client_version : int
        The client's newest version, as far as the one who checks knows.
    error : type
        Which error to raise.
    """
    broken = {
        "the latest server version went down": new.latest_server_version < before.latest_server_version,
        "the upload client version went down": new.upload_client_version < before.upload_client_version,
        "the download server version went down": new.download_server_version < before.download_server_version,
        "the download client version went down": new.download_client_version < before.download_client_version,
        "the upload client version is above what the client has": new.upload_client_version > newest_client_version,
        "the download server version is above the latest": new.download_server_version > new.latest_server_version,
        "the download client version is above the upload's": new.download_client_version > new.upload_client_version,
        "the download server version is below the upload's": new.download_server_version < new.upload_server_version,
    }
    for what, is_broken in broken.items():
        if is_broken:
            raise error(f"A DOWNLOAD with bad progress: {what}.")


def check_entries(
    before: Progress,
    message: Download,
    file_ident: int,
    *,
    flexible: bool,
    error: type[ProtocolError] = RemoteProtocolError,
) -> None:
    """Check the entries of a DOWNLOAD: their versions, and that none comes from the client itself."""
    server, client = before.download_server_version, before.download_client_version
    for entry in message.entries:
        too_low = entry.server_version < server if flexible else entry.server_version <= server
        if too_low or not 0 < entry.server_version <= message.download_server_version:
            raise error(f"A DOWNLOAD entry with server version {entry.server_version} after {server}.")
        if not client <= entry.client_version <= message.download_client_version:
            raise error(f"A DOWNLOAD entry with client version {entry.client_version} after {client}.")
        if entry.file_ident < 1 or entry.file_ident == file_ident:
            raise error(f"A DOWNLOAD entry of file {entry.file_ident}: it must be another file than the client's own.")
        server, client = entry.server_version, entry.client_version


def compensating_writes(session: int, body: Mapping[str, Any]) -> CompensatingWrites:
    """Read the body of a json_error 231.

    Raises
    ------
    RemoteProtocolError
        If something that it needs is missing.
    """
    try:
        writes = tuple(
            {"class": w["table"], "primary_key": primary_key_from_text(w["pk"]), "reason": w["reason"]}
            for w in body["rejectedUpdates"]
        )
        versions = int(body["rejectedClientVersion"]), int(body["compensatingWriteServerVersion"])
    except (KeyError, TypeError, ValueError, IndexError):
        raise RemoteProtocolError("A compensating write error without the fields that it needs.") from None
    return CompensatingWrites(session, str(body.get("message", "")), writes, *versions, str(body.get("logURL", "")))


def session_error(number: int, code: int, body: Mapping[str, Any], *, try_again: bool) -> SessionError:
    """Read the body of an error of a session: what it is called and what has to be done about it."""
    action = str(body.get("action", ""))
    rule = ACTION_RULES.get(action, UNKNOWN_ACTION)
    follow_up = FollowUp.MIGRATE_SCHEMA if code == SCHEMA_VERSION_CHANGED else rule.follow_up
    follow_up = FollowUp.STOP if follow_up is FollowUp.RETRY and not try_again else follow_up
    fatal = follow_up not in (FollowUp.RETRY, FollowUp.REFRESH_USER, FollowUp.REFRESH_LOCATION)
    texts = error_name(code), action, str(body.get("message", ""))
    log_url = str(body.get("logURL", ""))
    return SessionError(number, code, *texts, follow_up, fatal, rule.is_reported, log_url, dict(body))
