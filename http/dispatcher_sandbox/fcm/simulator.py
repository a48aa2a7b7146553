"""FCM's HTTP v1 API as a simulator: ``POST /v1/projects/{project}/messages:send``.

Authentication, rules and the wording of every answer. The project of the access token is the only one there is for its account;
another is forbidden, and one whose id begins with ``missing-`` does not exist. The notification's id is read from
``data.notification_id``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import orjson

from dispatcher_sandbox.behaviour import Behaviour
from dispatcher_sandbox.fcm.accounts import Accounts
from dispatcher_sandbox.fcm.rules import camel, faults_of, is_registration
from dispatcher_sandbox.ledger import Correlation, Sent
from dispatcher_sandbox.magic import Magic, Trick
from dispatcher_sandbox.magic_token import COMMON, magic_token
from dispatcher_sandbox.messages import JSON, REASONS, Answer, Request, gateway_page
from dispatcher_sandbox.rate import Rate
from dispatcher_sandbox.simulator import Intake, Search

_PATH = re.compile(rb"/v1/projects/([a-z0-9.:-]{1,64})/messages:send")
_ERROR = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
_BAD_REQUEST = "type.googleapis.com/google.rpc.BadRequest"
_QUOTA_FAILURE = "type.googleapis.com/google.rpc.QuotaFailure"
_BY_FRONT_SERVER = frozenset({408, 413, 502, 504})

MAGIC: Mapping[str, Magic] = MappingProxyType(
    {
        **COMMON,
        "unregistered": Magic(Trick.REFUSE, status=404, explanation="404 UNREGISTERED: the app is gone from the device"),
        "invalid": Magic(Trick.REFUSE, status=400, reason="registration", explanation="400: no registration token"),
        "argument": Magic(Trick.REFUSE, status=400, explanation="400 INVALID_ARGUMENT about something else"),
        "sender": Magic(Trick.REFUSE, status=403, reason="sender", explanation="403: a token of another project"),
        "device": Magic(Trick.REFUSE, 1, 429, "device", explanation="429 for this device, the first time"),
        "third-party": Magic(Trick.REFUSE, status=401, reason="third-party", explanation="401: Apple's service refused FCM"),
        "unauthorized": Magic(Trick.REFUSE, status=401, explanation="401, as if the access token had been withdrawn"),
        "forbidden": Magic(Trick.REFUSE, status=403, explanation="403: the account may not send"),
    }
)
"""Registration tokens with these names fail on purpose."""

_STATUSES: dict[int, tuple[str, str | None]] = {
    400: ("INVALID_ARGUMENT", "INVALID_ARGUMENT"),
    401: ("UNAUTHENTICATED", None),
    403: ("PERMISSION_DENIED", None),
    404: ("NOT_FOUND", "UNREGISTERED"),
    429: ("RESOURCE_EXHAUSTED", "QUOTA_EXCEEDED"),
    500: ("INTERNAL", "INTERNAL"),
    503: ("UNAVAILABLE", "UNAVAILABLE"),
}
_REASONS: dict[tuple[int, str], str | None] = {
    (401, "third-party"): "THIRD_PARTY_AUTH_ERROR",
    (403, "sender"): "SENDER_ID_MISMATCH",
    (404, "project"): None,
}
"""FCM's own code where the reason changes it."""


class Fcm:
    """The simulator. Holds nothing but the accounts."""

    name = "fcm"
    prefix = b"/v1/projects/"
    ceiling_per_s = 10_000
    """600,000 a minute."""

    def __init__(self, accounts: Accounts) -> None:
        self._accounts = accounts

    def account(self, request: Request) -> bytes:
        """The project: its quota is what FCM counts."""
        match = _PATH.fullmatch(request.path)
        return b"fcm " + (match[1] if match else b"")

    def read(self, request: Request, behaviour: Behaviour, now_s: float) -> Intake | Search | Answer:
        """Route, authenticate, check."""
        match = _PATH.fullmatch(request.path)
        if match is None or request.method != b"POST":
            return gateway_page(404)
        scheme, _, token = request.headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        grant = self._accounts.grant(token, now_s) if scheme == "Bearer" else None
        if grant is None:
            return _refusal(401)
        project_id = match[1].decode()
        if project_id.startswith("missing-"):
            return _refusal(404, "project")
        if project_id != grant.project_id:
            return _refusal(403)
        try:
            document = orjson.loads(request.body)
        except orjson.JSONDecodeError:
            return _violations([("", "the body is not JSON")])
        if not isinstance(document, dict):
            return _violations([("", "the body is not an object")])
        given = camel(document)
        faults = faults_of(given.get("message"))
        if not given.keys() <= {"message", "validateOnly"} or not isinstance(given.get("validateOnly", False), bool):
            faults.append(("", "only message and validate_only may stand here"))
        if faults:
            return _violations(faults)
        return _intake(given["message"], bool(given.get("validateOnly")), behaviour.magic_recipients)

    def accepted(self, id_bits: int) -> tuple[str, Answer]:
        """200 with the message's name, which is of the project ``sandbox`` whatever the request's."""
        name = f"projects/sandbox/messages/0:{id_bits:032x}"
        return name, self.replayed(name)

    def replayed(self, message_id: str) -> Answer:
        """The 200 again."""
        return Answer(200, JSON, orjson.dumps({"name": message_id}))

    def validated(self) -> Answer:
        """200 with the name that FCM gives what it only checked."""
        return self.replayed("projects/sandbox/messages/fake_message_id")

    def listing(self, sent: Sequence[Sent]) -> Answer:
        """FCM can not be asked what it sent."""
        return gateway_page(404)

    def refused(self, status: int, reason: str) -> Answer:
        """A refusal that was decided, not found."""
        return _refusal(status, reason)

    def rate_headers(self, rate: Rate) -> bytes:
        """None: FCM tells of its quota in ``Retry-After`` only."""
        return b""


def _intake(message: dict[str, Any], validate_only: bool, magic_recipients: bool) -> Intake | Answer:
    given = camel(message)
    token = given.get("token")
    correlation = Correlation((given.get("data") or {}).get("notification_id"), None)
    magic = magic_token(token, MAGIC) if magic_recipients and token is not None else None
    if token is not None and magic is None and not is_registration(token):
        return _refusal(400, "registration")
    name = "" if magic is None else correlation.notification_id or token or ""
    return Intake((correlation,), None, magic, name, validate_only)


def _refusal(status: int, reason: str = "") -> Answer:
    if status in _BY_FRONT_SERVER:
        return gateway_page(status)
    word, code = _STATUSES.get(status, ("UNKNOWN", "UNSPECIFIED_ERROR"))
    code = _REASONS.get((status, reason), code)
    details: list[dict[str, Any]] = []
    if code is not None:
        details.append({"@type": _ERROR, "errorCode": code})
    if reason == "registration":
        violation = {"field": "message.token", "description": "not a registration token"}
        details.append({"@type": _BAD_REQUEST, "fieldViolations": [violation]})
    if status == 429:
        subject = "device" if reason == "device" else "project"
        details.append({"@type": _QUOTA_FAILURE, "violations": [{"subject": subject, "description": "too many messages"}]})
    return _error(status, word, REASONS.get(status, "error"), details)


def _violations(faults: Sequence[tuple[str, str]]) -> Answer:
    violations = [{"field": field, "description": description} for field, description in faults]
    details = [{"@type": _BAD_REQUEST, "fieldViolations": violations}]
    return _error(400, "INVALID_ARGUMENT", f"{faults[0][0]} {faults[0][1]}", details)


def _error(status: int, word: str, text: str, details: Sequence[Mapping[str, Any]]) -> Answer:
    headers = JSON + (b"Retry-After: 1\r\n" if status == 429 else b"")
    error = {"code": status, "message": text, "status": word, "details": details}
    return Answer(status, headers, orjson.dumps({"error": error}))
