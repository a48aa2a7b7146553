"""Signatures, against the signer of AWS's own SDK."""

from __future__ import annotations

from datetime import UTC, datetime
from unittest.mock import patch

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import example, given
from hypothesis import strategies as st

from dispatcher.http_message import Origin
from dispatcher.providers.sigv4 import Signer, host_header

KEY_ID, SECRET = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
NOW = 1_700_000_000.5
PATHS = st.text("abcXYZ019-._~!$&'()*+,;=:@%/", max_size=40).map(lambda text: "/" + text.lstrip("/"))
QUERIES = st.text("abAB09=&-_.~%", max_size=20)
VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30)
NAMES = st.sampled_from(["content-type", "accept", "x-amz-meta", "x-custom", "if-match"])


def theirs(
    method: str,
    url: str,
    headers: dict[str, str],
    body: bytes,
    unix_s: float,
    token: str | None = None,
) -> dict[str, str]:
    """The headers that AWS's SDK signs and sends."""
    request = AWSRequest(method, url, headers, body)
    with patch("botocore.auth.get_current_datetime", lambda: datetime.fromtimestamp(int(unix_s), UTC)):
        SigV4Auth(Credentials(KEY_ID, SECRET, token), "ses", "eu-central-1").add_auth(request)
    return {name.lower(): value for name, value in request.headers.items()}


def ours(
    method: str, origin: Origin, target: str, headers: dict[str, str], body: bytes, unix_s: float, token: str | None = None
) -> dict[str, str]:
    signer = Signer(KEY_ID, SECRET, "eu-central-1", "ses", token)
    given = [(name.encode(), value.encode()) for name, value in headers.items()]
    signed = signer.sign(method.encode(), host_header(origin), target.encode(), given, body, unix_s)
    return {name.decode(): value.decode() for name, value in signed}


@given(
    method=st.sampled_from(["GET", "POST", "PUT", "DELETE"]),
    path=PATHS,
    query=QUERIES,
    headers=st.dictionaries(NAMES, VALUES, max_size=4),
    body=st.binary(max_size=60),
    token=st.none() | st.text("abcXYZ+/=09", min_size=1, max_size=60),
    unix_s=st.floats(0, 4e9),
    origin=st.sampled_from(
        [
            Origin("https", "email.eu-central-1.amazonaws.com", 443),
            Origin("http", "127.0.0.1", 8025),
            Origin("https", "example.org", 8443),
            Origin("http", "::1", 80),
        ]
    ),
)
@example(
    "POST", "/v2/email/outbound-emails", "", {"content-type": "application/json"}, b"{}", None, NOW, Origin("http", "::1", 80)
)
@example("GET", "/a//b/../c/./%41/", "b=2&a&a=1", {"accept": " a  b "}, b"", "t+/=", NOW, Origin("http", "localhost", 80))
def test_signatures_are_those_of_the_sdk_byte_for_byte(
    method: str, path: str, query: str, headers: dict[str, str], body: bytes, token: str | None, unix_s: float, origin: Origin
) -> None:
    host = f"[{origin.host}]" if ":" in origin.host else origin.host
    url = f"{origin.scheme}://{host}:{origin.port}{path}" + (f"?{query}" if query else "")
    target = path + (f"?{query}" if query else "")

    assert ours(method, origin, target, headers, body, unix_s, token) == theirs(method, url, headers, body, unix_s, token)


def test_the_signing_key_is_made_anew_when_the_day_turns_and_back() -> None:
    signer = Signer(KEY_ID, SECRET, "eu-central-1", "ses")
    for unix_s in (NOW, NOW + 5, NOW + 86_400, NOW - 86_400, NOW):
        signed = dict(signer.sign(b"GET", b"example.org", b"/", (), b"", unix_s))

        assert signed[b"authorization"].decode() == theirs("GET", "https://example.org/", {}, b"", unix_s)["authorization"]


def test_a_signer_shows_no_key() -> None:
    assert repr(Signer(KEY_ID, SECRET, "eu-central-1", "ses", "token")) == "<signer for ses in eu-central-1>"
