"""The provider token of APNs: a JWT that one key signs, the same in every process and after every restart.

Apple refuses tokens older than an hour, and new ones that come more often than every 20 minutes. So the moment of issue lies on a
grid of 40 minutes, and the signature is the deterministic one of RFC 6979: whoever holds the key makes the same token at the same
time, and Apple sees one token where many processes send.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from jwt import PyJWS
from jwt.algorithms import ECAlgorithm
from jwt.utils import der_to_raw_signature

STEP_S: Final = 2400
"""Between Apple's 20 and 60 minutes, with room for clocks on both sides."""
SLACK_S: Final = 60
"""A token is used only this long after its moment of issue, so that a clock a little ahead of Apple's does no harm."""


class _DeterministicEs256(ECAlgorithm):
    """ES256 whose signature depends on nothing but key and text, where the library underneath can do that."""

    def __init__(self) -> None:
        super().__init__(ECAlgorithm.SHA256)

    def sign(self, msg: bytes, key: ec.EllipticCurvePrivateKey) -> bytes:
        try:
            signature = key.sign(msg, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
        except UnsupportedAlgorithm:
            signature = key.sign(msg, ec.ECDSA(hashes.SHA256()))
        return der_to_raw_signature(signature, key.curve)


_SIGNER = PyJWS(algorithms=[])
_SIGNER.register_algorithm("ES256", _DeterministicEs256())


class ProviderToken:
    """The tokens of one key. Keeps the one in use; a value in all but its memory."""

    __slots__ = ("_issued_at_s", "_key", "_key_id", "_team_id", "_text")

    def __init__(self, team_id: str, key_id: str, key: ec.EllipticCurvePrivateKey) -> None:
        self._team_id = team_id
        self._key_id = key_id
        self._key = key
        self._issued_at_s = -1
        self._text = b""

    def __repr__(self) -> str:
        return "<ProviderToken>"

    def at(self, now_unix_s: float) -> bytes:
        """The token to use now."""
        issued_at_s = int(now_unix_s - SLACK_S) // STEP_S * STEP_S
        if issued_at_s != self._issued_at_s:
            claims: Mapping[str, Any] = {"iss": self._team_id, "iat": issued_at_s}
            # "typ" is left out, as in Apple's own examples.
            headers = {"kid": self._key_id, "typ": None}
            self._text = _SIGNER.encode(orjson.dumps(claims), self._key, "ES256", headers).encode("ascii")
            self._issued_at_s = issued_at_s
        return self._text


def signing_key(pem: object) -> ec.EllipticCurvePrivateKey | None:
    """The P-256 key in a PEM text such as the ``.p8`` file that Apple hands out; None when it is none."""
    if not isinstance(pem, str) or len(pem) > 8192:
        return None
    try:
        key = load_pem_private_key(pem.strip().encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # no PEM, or under a password, or of a kind unknown here
        return None
    return key if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1) else None
