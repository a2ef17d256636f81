"""How the users' file is kept: plain, encrypted with a key of 64 bytes, or in memory only.

Encrypted content is AES-256-GCM under a key that HKDF-SHA-256 derives from the 64 bytes and a new salt for each
writing. A keyed check value beside it tells a wrong key from a damaged file.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from realmframe.errors import UsageError

MODES: Final = ("no_encryption", "encryption", "in_memory")
KEY_BYTES: Final = 64
_SALT_BYTES, _NONCE_BYTES = 32, 12
_INFO: Final = b"realmframe users 1"
_CHECK: Final = b"realmframe key check 1"


@dataclass(frozen=True, slots=True)
class MetadataConfiguration:
    """How an App keeps its users and their tokens; realms themselves are not meant.

    Parameters
    ----------
    mode : str
        ``"no_encryption"`` (the default, a file that only its owner can read), ``"encryption"``, or ``"in_memory"``:
        nothing on disk, so everybody logs in again in the next process.
    encryption_key : bytes, optional
        64 bytes; needed by, and only by, ``"encryption"``.

    Raises
    ------
    UsageError
        For another mode or a key of another length, and if the package for encryption is missing.
    """

    mode: str = "no_encryption"
    encryption_key: bytes | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise UsageError(f"metadata: mode cannot be {self.mode!r}.", hint=f"It is one of {', '.join(MODES)}.")
        if (self.mode == "encryption") != (self.encryption_key is not None):
            raise UsageError("metadata: mode 'encryption' and encryption_key belong together.")
        if self.encryption_key is not None:
            if not isinstance(self.encryption_key, bytes) or len(self.encryption_key) != KEY_BYTES:
                raise UsageError(f"metadata: encryption_key must be {KEY_BYTES} bytes.")
            _ciphers()


class Vault:
    """Encrypts and decrypts with one key.

    Parameters
    ----------
    key : bytes
        64 bytes.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._check = hmac.new(key, _CHECK, hashlib.sha256).hexdigest()

    def __repr__(self) -> str:
        return "Vault(<key>)"

    def seal(self, content: bytes) -> dict[str, str]:
        """Encrypt."""
        salt, nonce = os.urandom(_SALT_BYTES), os.urandom(_NONCE_BYTES)
        sealed = self._cipher(salt).encrypt(nonce, content, _INFO)
        parts = {"salt": salt, "nonce": nonce, "sealed": sealed}
        return {"check": self._check, **{name: base64.b64encode(part).decode() for name, part in parts.items()}}

    def open(self, form: Mapping[str, Any]) -> bytes:
        """Decrypt.

        Raises
        ------
        UsageError
            If it was encrypted with another key.
        ValueError, KeyError, TypeError
            If it is damaged.
        """
        if not hmac.compare_digest(str(form["check"]).encode(), self._check.encode()):
            raise UsageError(
                "The app's users were encrypted with another encryption_key.", hint="Give the key that was used first."
            )
        salt, nonce, sealed = (base64.b64decode(form[name], validate=True) for name in ("salt", "nonce", "sealed"))
        from cryptography.exceptions import InvalidTag

        try:
            return bytes(self._cipher(salt).decrypt(nonce, sealed, _INFO))
        except InvalidTag as fault:
            raise ValueError("the content was changed") from fault

    def _cipher(self, salt: bytes) -> Any:
        gcm, hkdf, sha = _ciphers()
        return gcm(hkdf(algorithm=sha(), length=32, salt=salt, info=_INFO).derive(self._key))


def _ciphers() -> tuple[Any, Any, Any]:
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        from cryptography.hazmat.primitives.hashes import SHA256
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF
    except ImportError as fault:
        raise UsageError(
            "Encrypting the app's users needs the package cryptography.", hint='pip install "realmframe[encryption]"'
        ) from fault
    return AESGCM, HKDF, SHA256
