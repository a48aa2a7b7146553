"""Google's token service for service accounts: ``POST /token`` with a signed assertion, an access token back.

The assertion is verified as the real one does: signature, times, scope, and whom it is for. ``aud`` may be Google's own URL
wherever the request arrives: Google's client libraries do not change it.
"""

from __future__ import annotations

import urllib.parse
from collections.abc import Sequence

import jwt
import orjson

from dispatcher_sandbox.behaviour import Behaviour
from dispatcher_sandbox.fcm.accounts import EMAIL_TAIL, TOKEN_LIFE_S, Accounts
from dispatcher_sandbox.ledger import Sent
from dispatcher_sandbox.messages import JSON, REASONS, Answer, Request, gateway_page
from dispatcher_sandbox.rate import Rate
from dispatcher_sandbox.simulator import Intake, Search

GRANT_TYPE = "urn:ietf:params:oauth:grant-type:jwt-bearer"
AUDIENCE = "https://oauth2.googleapis.com/token"
SCOPES = frozenset({"https://www.googleapis.com/auth/firebase.messaging", "https://www.googleapis.com/auth/cloud-platform"})
ASSERTION_LIFE_S_MAX = 3600
CLOCK_SLACK_S = 300
_FORM = b"application/x-www-form-urlencoded"


class TokenService:
    """The simulator. Its requests have no effect that a ledger would show."""

    name = "google-token"
    prefix = b"/token"
    ceiling_per_s = 1_000

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts

    def account(self, request: Request) -> bytes:
        """One limit for all: who asks is inside the assertion."""
        return b"google-token"

    def read(self, request: Request, behaviour: Behaviour, now_s: float) -> Intake | Search | Answer:
        """Verify an assertion; a token for it, or the refusal."""
        if request.path != b"/token":
            return gateway_page(404)
        if request.method != b"POST":
            return gateway_page(405)
        if request.headers.get(b"content-type", b"").partition(b";")[0].strip().lower() != _FORM:
            return _refused(400, "invalid_request", "a form is expected")
        form = dict(urllib.parse.parse_qsl(request.body.decode("latin-1")))
        if form.get("grant_type") != GRANT_TYPE:
            return _refused(400, "unsupported_grant_type", "only signed assertions are taken here")
        return self._judge(form.get("assertion", ""), now_s)

    def _judge(self, assertion: str, now_s: float) -> Answer:
        try:
            claims = jwt.decode(
                assertion,
                self._accounts.key.public_key(),
                ["RS256"],
                options={"verify_exp": False, "verify_iat": False, "verify_aud": False, "require": ["iss", "aud", "iat", "exp"]},
            )
            header = jwt.get_unverified_header(assertion)
            issued_at_s, ends_at_s = float(claims["iat"]), float(claims["exp"])
        except (jwt.InvalidTokenError, TypeError, ValueError):
            return _refused(400, "invalid_grant", "the assertion or its signature is not valid")
        if header.get("kid") not in (None, self._accounts.key_id):
            return _refused(400, "invalid_grant", "no such key")
        if claims["aud"] != AUDIENCE and not str(claims["aud"]).endswith("/token"):
            return _refused(400, "invalid_grant", "the assertion is for somebody else")
        if not issued_at_s - CLOCK_SLACK_S <= now_s < ends_at_s + CLOCK_SLACK_S:
            return _refused(400, "invalid_grant", "the assertion is of another time: check the clock")
        if ends_at_s - issued_at_s > ASSERTION_LIFE_S_MAX:
            return _refused(400, "invalid_grant", "the assertion may live for an hour at most")
        name, _, rest = str(claims["iss"]).partition("@")
        if not name or not rest.endswith(EMAIL_TAIL):
            return _refused(400, "invalid_grant", "no such account")
        if not SCOPES & set(str(claims.get("scope", "")).split()):
            return _refused(400, "invalid_scope", "none of these scopes is known here")
        token = self._accounts.token(rest.removesuffix(EMAIL_TAIL), now_s)
        body = {"access_token": token, "expires_in": TOKEN_LIFE_S, "token_type": "Bearer"}
        return Answer(200, JSON, orjson.dumps(body))

    def listing(self, sent: Sequence[Sent]) -> Answer:
        """There is nothing to search."""
        return gateway_page(404)

    def accepted(self, id_bits: int) -> tuple[str, Answer]:
        """Never asked for: no request here is a message."""
        return "", Answer(204)

    def replayed(self, message_id: str) -> Answer:
        """Never asked for."""
        return Answer(204)

    def validated(self) -> Answer:
        """Never asked for."""
        return Answer(204)

    def refused(self, status: int, reason: str) -> Answer:
        """A refusal that was decided, not found: an outage, the rate limit."""
        return _refused(status, "temporarily_unavailable" if status == 503 else "server_error", REASONS.get(status, ""))

    def rate_headers(self, rate: Rate) -> bytes:
        """None."""
        return b""


def _refused(status: int, error: str, description: str) -> Answer:
    return Answer(status, JSON, orjson.dumps({"error": error, "error_description": description}))
