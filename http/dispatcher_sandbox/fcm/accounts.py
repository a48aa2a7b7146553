"""The service accounts of the sandbox and the access tokens it gives them. One RSA key serves every account.

An access token tells, sealed, whose it is and until when, so nothing has to be remembered: the key pair and the seal are all
there is, made when they are first needed and good for as long as the process lives.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from functools import cached_property
from typing import Any, NamedTuple

import orjson
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

EMAIL_TAIL = ".iam.gserviceaccount.com"
TOKEN_LIFE_S = 3599
_TOKEN_HEAD = "ya29."  # noqa: S105


class Grant(NamedTuple):
    """What an access token says: the project of its account, and when it ends."""

    project_id: str
    expires_at_s: float


class Accounts:
    """Key files and access tokens."""

    def __init__(self) -> None:
        self._seal = secrets.token_bytes(32)

    @cached_property
    def key(self) -> rsa.RSAPrivateKey:
        """The key of every account."""
        return rsa.generate_private_key(65537, 2048)

    @property
    def key_id(self) -> str:
        """The name of that key."""
        return hashlib.blake2b(self._seal, digest_size=20).hexdigest()

    def key_file(self, project_id: str, origin: str) -> dict[str, Any]:
        """A key file as Google's console makes it, for a sandbox at this origin."""
        return {
            "type": "service_account",
            "project_id": project_id,
            "private_key_id": self.key_id,
            "private_key": self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
            "client_email": f"sandbox@{project_id}{EMAIL_TAIL}",
            "client_id": "100000000000000000000",
            "auth_uri": f"{origin}/auth",
            "token_uri": f"{origin}/token",
            "universe_domain": "googleapis.com",
        }

    def token(self, project_id: str, now_s: float) -> str:
        """A new access token for an account of this project."""
        said = urlsafe_b64encode(orjson.dumps([project_id, now_s + TOKEN_LIFE_S])).decode()
        return f"{_TOKEN_HEAD}{said}.{self._sealed(said)}"

    def grant(self, token: str, now_s: float) -> Grant | None:
        """What a token grants; None for one that was not given out here or has ended."""
        said, _, seal = token.removeprefix(_TOKEN_HEAD).partition(".")
        if not token.startswith(_TOKEN_HEAD) or not hmac.compare_digest(seal.encode(), self._sealed(said).encode()):
            return None
        grant = Grant(*orjson.loads(urlsafe_b64decode(said)))
        return grant if now_s < grant.expires_at_s else None

    def _sealed(self, said: str) -> str:
        return hashlib.blake2b(said.encode(), key=self._seal, digest_size=24).hexdigest()
