"""Signature Version 4 of AWS: the headers that show who sends a request, and that nobody changed it on its way.

A signer belongs to one key, one region and one service. It keeps the signing key of the day it was last asked about, as four
rounds of HMAC make it and only the date changes it. Invariant: what is signed is exactly what the transport will write, so
``host`` and ``target`` must be those of the wire; and no key ever stands in a repr.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from hmac import digest
from typing import Final
from urllib.parse import quote

from dispatcher.http_message import Headers, Origin

ALGORITHM: Final = "AWS4-HMAC-SHA256"
_PORTS = {"http": 80, "https": 443}


class Signer:
    """Signs requests with one access key."""

    __slots__ = ("_access_key_id", "_day", "_region", "_scope", "_secret", "_service", "_signing_key", "_token")

    def __init__(
        self, access_key_id: str, secret_access_key: str, region: str, service: str, session_token: str | None = None
    ) -> None:
        self._access_key_id = access_key_id
        self._secret = b"AWS4" + secret_access_key.encode("ascii")
        self._region = region
        self._service = service
        self._token = None if session_token is None else session_token.encode("ascii")
        self._day = ""
        self._signing_key = b""
        self._scope = ""

    def __repr__(self) -> str:
        return f"<signer for {self._service} in {self._region}>"

    def sign(self, method: bytes, host: bytes, target: bytes, headers: Headers, body: bytes, unix_s: float) -> Headers:
        """The headers to send: those given, which are all signed, and those of the signature.

        ``host`` is the value of the ``Host`` header, ``target`` the request target, percent-encoded, with its query. Header
        names are lower case, each given once.
        """
        stamp = datetime.fromtimestamp(int(unix_s), UTC).strftime("%Y%m%dT%H%M%SZ")
        self._turn_to(stamp[:8])
        sent = [*headers, (b"x-amz-date", stamp.encode("ascii"))]
        if self._token is not None:
            sent.append((b"x-amz-security-token", self._token))
        signed = sorted([*sent, (b"host", host)])
        names = b";".join(name for name, _ in signed).decode("ascii")
        path, _, query = target.decode("ascii").partition("?")
        canonical = "\n".join(
            (
                method.decode("ascii"),
                canonical_path(path),
                _canonical_query(query),
                *(f"{name.decode('ascii')}:{_trimmed(value)}" for name, value in signed),
                "",
                names,
                sha256(body).hexdigest(),
            )
        )
        to_sign = f"{ALGORITHM}\n{stamp}\n{self._scope}\n{sha256(canonical.encode('utf-8')).hexdigest()}"
        signature = digest(self._signing_key, to_sign.encode("ascii"), sha256).hex()
        credential = f"Credential={self._access_key_id}/{self._scope}"
        authorization = f"{ALGORITHM} {credential}, SignedHeaders={names}, Signature={signature}"
        return (*sent, (b"authorization", authorization.encode("ascii")))

    def _turn_to(self, day: str) -> None:
        if day == self._day:
            return
        key = self._secret
        for part in (day, self._region, self._service, "aws4_request"):
            key = digest(key, part.encode("ascii"), sha256)
        self._signing_key = key
        self._scope = f"{day}/{self._region}/{self._service}/aws4_request"
        self._day = day


def host_header(origin: Origin) -> bytes:
    """What the transport writes as ``Host``: without the port where it is the scheme's own, an IPv6 literal in brackets."""
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    return (host if origin.port == _PORTS.get(origin.scheme) else f"{host}:{origin.port}").encode("ascii")


@lru_cache(maxsize=64)
def canonical_path(path: str) -> str:
    """The path as it is signed: without dot segments and empty ones, and percent-encoded once more than it is on the wire."""
    kept: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            del kept[-1:]
        elif segment not in ("", "."):
            kept.append(segment)
    ends = "/" if kept and path.endswith("/") else ""
    return quote(f"/{'/'.join(kept)}{ends}", safe="/~")


def _canonical_query(query: str) -> str:
    pairs = sorted(pair.partition("=")[::2] for pair in query.split("&")) if query else []
    return "&".join(f"{name}={value}" for name, value in pairs)


def _trimmed(value: bytes) -> str:
    """A header's value without blanks around it, and with single ones within."""
    return " ".join(value.decode("ascii").split())
