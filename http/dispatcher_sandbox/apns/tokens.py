"""Provider tokens: read, verified, and watched for coming too often.

Whose key is known, by ``apns_keys`` of the behaviour, has the signature verified with it; while none is known, any well-formed
token will do. Memory is bounded by the tokens and keys remembered.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import NamedTuple

import jwt

LIFE_S = 3600
UPDATE_MIN_S = 1200
"""A new token sooner than this after the last one is too soon."""
AHEAD_S = 300
"""How far a token's moment of issue may lie in the future: clocks differ."""
REMEMBERED_MAX = 1000
_PREFIX = b"bearer "


class Claims(NamedTuple):
    """What a token says. ``refusal`` is why it is none, whatever the time."""

    key_id: str
    issued_at_s: float
    refusal: str | None = None


class ProviderTokens:
    """Judges the ``authorization`` of requests."""

    def __init__(self) -> None:
        self._read: OrderedDict[bytes, Claims] = OrderedDict()
        self._keys: Mapping[str, str] = {}
        self._latest: OrderedDict[str, float] = OrderedDict()

    def refusal(self, authorization: bytes, keys: Mapping[str, str], now_s: float) -> str | None:
        """The reason to refuse with, or None for a good token. ``keys`` are public keys in PEM by ``team.key``."""
        if authorization[: len(_PREFIX)].lower() != _PREFIX:
            return "MissingProviderToken"
        if keys is not self._keys:
            self._keys = keys
            self._read.clear()
        claims = self._read.get(authorization)
        if claims is None:
            claims = self._read[authorization] = _read(authorization[len(_PREFIX) :], keys)
            if len(self._read) > REMEMBERED_MAX:
                self._read.popitem(last=False)
        if claims.refusal is not None:
            return claims.refusal
        if claims.issued_at_s > now_s + AHEAD_S:
            return "InvalidProviderToken"
        if claims.issued_at_s <= now_s - LIFE_S:
            return "ExpiredProviderToken"
        latest_s = self._latest.get(claims.key_id, claims.issued_at_s)
        if 0 < claims.issued_at_s - latest_s < UPDATE_MIN_S:
            return "TooManyProviderTokenUpdates"
        self._latest[claims.key_id] = max(latest_s, claims.issued_at_s)
        if len(self._latest) > REMEMBERED_MAX:
            self._latest.popitem(last=False)
        return None


def _read(token: bytes, keys: Mapping[str, str]) -> Claims:
    bad = Claims("", 0.0, "InvalidProviderToken")
    try:
        header = jwt.get_unverified_header(token)
        claims = jwt.decode(token, options={"verify_signature": False, "verify_iat": False}, algorithms=["ES256"])
    except jwt.PyJWTError:
        return bad
    key_id, team_id, issued_at = header.get("kid"), claims.get("iss"), claims.get("iat")
    if header.get("alg") != "ES256" or not _is_id(key_id) or not _is_id(team_id):
        return bad
    if isinstance(issued_at, bool) or not isinstance(issued_at, int | float):
        return bad
    if keys:
        public = keys.get(f"{team_id}.{key_id}")
        if public is None:
            return bad
        try:
            jwt.decode(token, public, algorithms=["ES256"], options={"verify_iat": False})
        except (jwt.PyJWTError, ValueError):
            return bad
    return Claims(f"{team_id}.{key_id}", float(issued_at))


def _is_id(value: object) -> bool:
    return isinstance(value, str) and len(value) == 10 and value.isascii() and value.isalnum()
