"""Whether a request was signed with Signature Version 4 by somebody who knows the secret.

Written from AWS's description of the procedure. Invariant: everything that decides is recomputed from the request; a header that
matters and is not signed refuses it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple
from urllib.parse import quote

from dispatcher_sandbox.messages import Request
from dispatcher_sandbox.ses.refusals import Refused

SECRET = "sandbox-secret-access-key"  # noqa: S105 - anybody's
"""What every access key's secret is, unless the behaviour names keys."""
SKEW_S_MAX = 300
EXPIRED_TOKEN = "expired"  # noqa: S105 - anybody's
"""A session token that begins so has ended."""

_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<id>\w{1,128})/(?P<day>\d{8})/(?P<region>[a-z0-9-]+)/(?P<service>[a-z0-9-]+)/aws4_request, ?"
    r"SignedHeaders=(?P<names>[a-z0-9;-]+), ?Signature=(?P<signature>[0-9a-f]{64})"
)
_WRONG = (
    "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing "
    "method. Consult the service documentation for details."
)


class Caller(NamedTuple):
    """Who signed, and for which region."""

    key_id: str
    region: str


def key_id_of(request: Request) -> bytes:
    """Whose request it says it is."""
    found = _AUTHORIZATION.match(request.headers.get(b"authorization", b"").decode("latin-1"))
    return found["id"].encode() if found else b""


def signed_by(request: Request, keys: Mapping[str, str], now_s: float) -> Caller:
    """Who signed a request. ``keys`` are secrets by key id, empty: everybody has ``SECRET``. Raises Refused."""
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers.items()}
    if "authorization" not in headers:
        raise Refused(403, "MissingAuthenticationTokenException", "Missing Authentication Token")
    found = _AUTHORIZATION.fullmatch(headers["authorization"])
    if found is None:
        raise Refused(403, "IncompleteSignatureException", "Authorization header requires Credential, SignedHeaders, Signature.")
    key_id, stamp, token = found["id"], headers.get("x-amz-date", ""), headers.get("x-amz-security-token")
    secret = keys.get(key_id) if keys else SECRET
    if secret is None:
        raise Refused(403, "UnrecognizedClientException", "The security token included in the request is invalid.")
    _check_time(stamp, found["day"], now_s)
    if found["service"] != "ses":
        raise Refused(403, "SignatureDoesNotMatch", "Credential should be scoped to correct service: 'ses'.")
    names = found["names"].split(";")
    matter = {"host", *(name for name in headers if name.startswith("x-amz-") or name == "content-type")}
    if not matter <= set(names) or names != sorted(set(names)) or not set(names) <= set(headers):
        raise Refused(403, "SignatureDoesNotMatch", _WRONG)
    scope = f"{found['day']}/{found['region']}/ses/aws4_request"
    to_sign = "\n".join(("AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(_canonical(request, headers, names)).hexdigest()))
    key = f"AWS4{secret}".encode()
    for step in (*scope.split("/"), to_sign):
        key = hmac.new(key, step.encode(), hashlib.sha256).digest()
    if not hmac.compare_digest(key.hex(), found["signature"]):
        raise Refused(403, "SignatureDoesNotMatch", _WRONG)
    if token is not None and token.startswith(EXPIRED_TOKEN):
        raise Refused(403, "ExpiredTokenException", "The security token included in the request is expired")
    return Caller(key_id, found["region"])


def _check_time(stamp: str, day: str, now_s: float) -> None:
    try:
        signed_s = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        raise Refused(403, "IncompleteSignatureException", "Date must be in ISO-8601 'basic format'.") from None
    if not stamp.startswith(day):
        raise Refused(403, "SignatureDoesNotMatch", "Date in Credential scope does not match that of x-amz-date.")
    if abs(signed_s - now_s) > SKEW_S_MAX:
        age = "expired" if signed_s < now_s else "not yet current"
        raise Refused(403, "SignatureDoesNotMatch", f"Signature {age}: {stamp} is more than 5 min. away.")


def _canonical(request: Request, headers: Mapping[str, str], names: list[str]) -> bytes:
    path, _, query = request.target.decode("latin-1").partition("?")
    segments: list[str] = []
    for segment in path.split("/"):
        match segment:
            case "" | ".":
                pass
            case "..":
                segments = segments[:-1]
            case _:
                segments.append(segment)
    tail = "/" if segments and path.endswith("/") else ""
    pairs = sorted(tuple(pair.partition("=")[::2]) for pair in query.split("&") if query)
    lines = [
        request.method.decode("latin-1"),
        quote("/" + "/".join(segments) + tail, safe="/~"),
        "&".join(f"{name}={value}" for name, value in pairs),
    ]
    lines += [f"{name}:{' '.join(headers[name].split())}" for name in names]
    lines += ["", ";".join(names), hashlib.sha256(request.body).hexdigest()]
    return "\n".join(lines).encode("latin-1")
