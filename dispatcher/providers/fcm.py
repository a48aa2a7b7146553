"""Firebase Cloud Messaging, HTTP v1: ``POST /v1/projects/{project}/messages:send``, one message to one registration token.

Requests carry an access token, which Google's token service gives out for an assertion signed with the key of a service account.
FCM honours no idempotency key and reports nothing later; the id of the notification goes to the app as an entry of ``data``, so
that an app can say which one it showed.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlencode

import jwt
import orjson
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from dispatcher.audience import GOOGLE
from dispatcher.http_message import HttpRequest, HttpResponse, Origin
from dispatcher.model import Channel, Delivery, ProviderConfig
from dispatcher.origins import BaseUrl, parse_base_url
from dispatcher.outcome import Outcome, OutcomeClass
from dispatcher.problems import Problem
from dispatcher.providers.fcm_errors import ACCESS_TOKEN_REFUSED, EXPLANATIONS, read_error, row_of, token_refusal
from dispatcher.providers.hints import retry_after_s
from dispatcher.providers.inquiry import unknown_problems
from dispatcher.providers.probing import Probed
from dispatcher.providers.provider import (
    COMMON_SETTINGS,
    Limits,
    Moment,
    Provider,
    Unbindable,
    Unsendable,
    base_url_of,
    common_problems,
    invalid,
    limits_of,
    missing,
    unknown_fields,
)
from dispatcher.providers.tokens import Token

HOST: Final = Origin("https", "fcm.googleapis.com", 443)
TOKEN_HOSTS: Final = (
    Origin("https", "oauth2.googleapis.com", 443),
    Origin("https", "accounts.google.com", 443),
    Origin("https", "www.googleapis.com", 443),
)
"""Where key files of any age say that tokens are given out."""
AUDIENCE: Final = "https://oauth2.googleapis.com/token"
"""Whom an assertion is for, wherever it is handed in."""
SCOPE: Final = "https://www.googleapis.com/auth/firebase.messaging"
ASSERTION_LIFE_S: Final = 3600
"""The longest Google takes."""
CLOCK_SLACK_S: Final = 10
"""An assertion is dated back by this, so that a clock a little ahead of Google's does no harm."""
TOKEN_LIFE_S_MAX: Final = 86_400.0
PAYLOAD_BYTES_MAX: Final = 4096
"""Of title, text, and the keys and values of data."""
TTL_S_MAX: Final = 2_419_200
"""Four weeks."""
RSA_BITS_MIN: Final = 2048
NOTIFICATION_KEY: Final = "notification_id"
"""The entry of ``data`` in which an app finds the notification's id."""
RESERVED_KEYS: Final = frozenset({"from", "message_type", NOTIFICATION_KEY})
RESERVED_PREFIXES: Final = ("google.", "gcm.notification.")
PROBE_REGISTRATION: Final = "dispatcher-probe"
"""No registration token: that FCM says so, and nothing else, shows that everything else is right."""

_ACCOUNT_FIELDS = ("project_id", "client_email", "private_key", "private_key_id", "token_uri")
_REGISTRATION = re.compile(r"[!-~]{1,4096}")
_PROJECT = re.compile(r"[a-z0-9][a-z0-9.:-]{0,62}[a-z0-9]")
_LABEL = re.compile(r"[A-Za-z0-9_.~%-]{1,50}")
_SHORT = re.compile(r"[!-~]{1,128}")
_ACCESS_TOKEN = re.compile(r"[!-~]{1,8192}")
_MESSAGE_NAME = re.compile(r"[!-~]{1,200}")
_PRIORITIES: Mapping[str, str] = MappingProxyType({"normal": "5", "high": "10"})
"""Ours and Android's word for it, and Apple's number."""
_SETTINGS = (
    COMMON_SETTINGS
    | {"on_unknown"}  # and no key_retention_s: no key is sent that anybody could honour
    | {"project_id", "priority", "ttl_s", "collapse_key", "analytics_label", "restricted_package_name"}
)


class BoundFcm:
    """FCM with one service account."""

    __slots__ = ("_account", "_key", "_settings", "_target", "_token_url", "limits", "origin")

    def __init__(self, config: ProviderConfig, account: Mapping[str, str], key: RSAPrivateKey) -> None:
        settings = config.settings
        base = base_url_of(settings, BaseUrl(HOST, ""))
        token_url = parse_base_url(account["token_uri"])
        assert token_url is not None, "checked before"
        self.origin = base.origin
        self.limits: Limits = limits_of(settings)
        self._account = account
        self._key = key
        self._token_url = token_url
        self._settings = settings
        self._target = base.target(f"/v1/projects/{settings.get('project_id') or account['project_id']}/messages:send")

    def __repr__(self) -> str:
        return f"<BoundFcm {self.origin}>"

    def request(self, delivery: Delivery, moment: Moment) -> HttpRequest:
        """One message to one device. Raises Unsendable for a payload or recipient that FCM can not take."""
        if _REGISTRATION.fullmatch(delivery.recipient) is None:
            raise Unsendable("recipient_invalid")
        notification, data = _content(delivery.payload)
        message: dict[str, Any] = {
            "token": delivery.recipient,
            "notification": notification,
            "data": {**data, NOTIFICATION_KEY: delivery.id},
            **self._options(delivery.expires_at_s, moment.unix_s),
        }
        return self._send({"message": message}, moment)

    def classify(self, response: HttpResponse, now_unix_s: float) -> Outcome:
        """What FCM's answer means, by the tables."""
        if 200 <= response.status < 300:
            return Outcome(OutcomeClass.DELIVERED, "accepted", _message_name(response.body))
        row = row_of(response.status, read_error(response.body))
        hint_s = retry_after_s(response.header(b"retry-after"), now_unix_s)
        return row.outcome() if hint_s is None else row._replace(retry_after_s=None).outcome(hint_s)

    def token_request(self, moment: Moment) -> HttpRequest:
        """Hands in an assertion, signed afresh: it names the time."""
        issued_at_s = int(moment.unix_s) - CLOCK_SLACK_S
        claims = {
            "iss": self._account["client_email"],
            "scope": SCOPE,
            "aud": AUDIENCE,
            "iat": issued_at_s,
            "exp": issued_at_s + ASSERTION_LIFE_S,
        }
        assertion = jwt.encode(claims, self._key, "RS256", {"kid": self._account["private_key_id"]})
        form = {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": assertion}
        headers = (
            (b"content-type", b"application/x-www-form-urlencoded"),
            (b"accept", b"application/json"),
            (b"user-agent", b"notification-dispatcher"),
        )
        return HttpRequest(
            self._token_url.origin, b"POST", self._token_url.target("") or b"/", headers, urlencode(form).encode("ascii")
        )

    def token_of(self, response: HttpResponse, now_unix_s: float) -> Token | Outcome:
        """The access token, or what its refusal means."""
        if response.status == 200:
            try:
                given = orjson.loads(response.body)
                text, life_s = given["access_token"], given["expires_in"]
                if _ACCESS_TOKEN.fullmatch(text) is not None and 0 < float(life_s) <= TOKEN_LIFE_S_MAX:
                    return Token(text, now_unix_s + float(life_s))
            except (orjson.JSONDecodeError, LookupError, TypeError, ValueError):
                pass
            return Outcome(OutcomeClass.SOFT, "token_not_understood")
        return token_refusal(response.status, response.body, retry_after_s(response.header(b"retry-after"), now_unix_s))

    def is_stale(self, outcome: Outcome) -> bool:
        """Whether the access token was turned away."""
        return outcome.code == ACCESS_TOKEN_REFUSED.code

    def probe(self, moment: Moment) -> HttpRequest:
        """Has FCM check a message, without sending, to what is no registration token."""
        message = {
            "token": PROBE_REGISTRATION,
            "notification": {"body": "probe"},
            **self._options(None, moment.unix_s),
        }
        return self._send({"validateOnly": True, "message": message}, moment)

    def probed(self, response: HttpResponse, now_unix_s: float) -> Probed:
        """Right when nothing but the registration token was refused."""
        outcome = self.classify(response, now_unix_s)
        if outcome.kind in (OutcomeClass.DELIVERED, OutcomeClass.SUPPRESS):
            if outcome.code == "sender_id_mismatch":
                return Probed(False, outcome.code, EXPLANATIONS[outcome.code])
            return Probed(True, "accepted", "FCM accepts the service account, the project and the settings.")
        if outcome.code == "invalid_argument":
            words = "FCM accepts the account and the project, but refuses a message with these settings. Check them one by one."
            return Probed(False, outcome.code, words)
        return Probed(False, outcome.code, EXPLANATIONS.get(outcome.code, "FCM did not answer as it should. Try again."))

    def _send(self, document: Mapping[str, Any], moment: Moment) -> HttpRequest:
        if moment.token is None:
            raise Unsendable("token_missing")
        headers = (
            (b"authorization", b"Bearer " + moment.token.encode("ascii")),
            (b"content-type", b"application/json"),
            (b"accept", b"application/json"),
            (b"user-agent", b"notification-dispatcher"),
        )
        try:
            body = orjson.dumps(document)
        except orjson.JSONEncodeError:
            raise Unsendable("payload_not_unicode") from None
        return HttpRequest(self.origin, b"POST", self._target, headers, body)

    def _options(self, expires_at_s: float | None, now_unix_s: float) -> dict[str, Any]:
        """The parts of a message that settings and its end make: for Android, and the same for Apple's and browsers' devices."""
        settings = self._settings
        ttl_s = settings.get("ttl_s")
        if expires_at_s is not None:
            left_s = max(0, int(expires_at_s - now_unix_s))
            ttl_s = min(left_s, TTL_S_MAX if ttl_s is None else ttl_s)
        android: dict[str, Any] = {}
        apns: dict[str, str] = {}
        webpush: dict[str, str] = {}
        if ttl_s is not None:
            android["ttl"] = f"{ttl_s}s"
            apns["apns-expiration"] = str(int(now_unix_s) + ttl_s)
            webpush["TTL"] = str(ttl_s)
        if settings.get("priority"):
            android["priority"] = settings["priority"].upper()
            apns["apns-priority"] = _PRIORITIES[settings["priority"]]
        if settings.get("collapse_key"):
            android["collapse_key"] = settings["collapse_key"]
            apns["apns-collapse-id"] = settings["collapse_key"]
        if settings.get("restricted_package_name"):
            android["restricted_package_name"] = settings["restricted_package_name"]
        parts: dict[str, Any] = {}
        if android:
            parts["android"] = android
        if apns:
            parts["apns"] = {"headers": apns}
        if webpush:
            parts["webpush"] = {"headers": webpush}
        if settings.get("analytics_label"):
            parts["fcm_options"] = {"analytics_label": settings["analytics_label"]}
        return parts


def settings_problems(settings: Mapping[str, Any], origins_extra: Collection[str] = ()) -> list[Problem]:
    """What is wrong with the settings of a configuration."""
    problems = unknown_fields(settings, _SETTINGS, "/settings")
    problems += common_problems(settings, {str(HOST), *origins_extra})
    problems += unknown_problems(settings, askable=False)
    project_id, ttl_s = settings.get("project_id"), settings.get("ttl_s")
    if project_id is not None and not _matches(_PROJECT, project_id):
        problems.append(invalid("/settings/project_id", "must be the id of a Firebase project"))
    if settings.get("priority") is not None and settings["priority"] not in _PRIORITIES:
        problems.append(invalid("/settings/priority", "must be normal or high"))
    if ttl_s is not None and not (isinstance(ttl_s, int) and not isinstance(ttl_s, bool) and 0 <= ttl_s <= TTL_S_MAX):
        problems.append(invalid("/settings/ttl_s", f"must be a whole number of seconds from 0 to {TTL_S_MAX}"))
    if settings.get("collapse_key") is not None and not _matches(re.compile(r"[!-~]{1,64}"), settings["collapse_key"]):
        problems.append(invalid("/settings/collapse_key", "must be 1 to 64 visible ASCII characters"))
    if settings.get("analytics_label") is not None and not _matches(_LABEL, settings["analytics_label"]):
        problems.append(invalid("/settings/analytics_label", "must be 1 to 50 letters, digits or characters of -_.~%"))
    if settings.get("restricted_package_name") is not None and not _matches(_SHORT, settings["restricted_package_name"]):
        problems.append(invalid("/settings/restricted_package_name", "must be the name of an Android package"))
    return problems


def credentials_problems(credentials: Mapping[str, Any]) -> list[Problem]:
    """What is wrong with the credentials of a configuration."""
    problems = unknown_fields(credentials, {"service_account"}, "/credentials")
    if credentials.get("service_account") is None:
        problems.append(missing("/credentials/service_account", "the JSON key file of a service account of the Firebase project"))
        return problems
    account = _account_of(credentials["service_account"])
    where = "/credentials/service_account"
    if account is None:
        problems.append(invalid(where, "must be the JSON key file of a service account, as an object or as its text"))
        return problems
    absent = [name for name in _ACCOUNT_FIELDS if name not in account]
    problems += [missing(f"{where}/{name}", "stands in every key file of a service account") for name in absent]
    for name, pattern in (("project_id", _PROJECT), ("client_email", _SHORT), ("private_key_id", _SHORT)):
        if name in account and not _matches(pattern, account[name]):
            problems.append(invalid(f"{where}/{name}", "must be as the key file has it"))
    if "token_uri" in account and (not isinstance(account["token_uri"], str) or parse_base_url(account["token_uri"]) is None):
        problems.append(invalid(f"{where}/token_uri", "must be an https URL without user, query and fragment"))
    if "private_key" in account:
        key = _key_of(account["private_key"], check=True)
        if key is None or key.key_size < RSA_BITS_MIN:
            problems.append(invalid(f"{where}/private_key", f"must be an RSA key of at least {RSA_BITS_MIN} bits in PEM"))
    return problems


def bind(config: ProviderConfig, origins_extra: Collection[str] = ()) -> BoundFcm:
    """FCM with one stored configuration. Raises Unbindable when it does not pass the checks it once passed."""
    account = _account_of(config.credentials.get("service_account")) or {}
    # Read without its arithmetic being checked, which takes 40 ms and was done when it was stored.
    key = _key_of(account.get("private_key"), check=False)
    rest = {**account, "private_key": ""}
    problems = settings_problems(config.settings, origins_extra)
    problems += [
        problem
        for problem in credentials_problems({"service_account": rest})
        if problem.pointer != "/credentials/service_account/private_key"
    ]
    if key is None:
        problems.append(invalid("/credentials/service_account/private_key", "must be an RSA key in PEM"))
    if not problems and str(_token_origin(account)) not in {*map(str, TOKEN_HOSTS), *origins_extra}:
        where = "/credentials/service_account/token_uri"
        problems.append(invalid(where, "names a host that is not allowed here", "base_url_not_allowed"))
    if problems or key is None:
        raise Unbindable(problems[0])
    return BoundFcm(config, rest, key)


FCM: Final = Provider(
    "fcm",
    frozenset({Channel.PUSH}),
    settings_problems,
    credentials_problems,
    bind,
    explanations=EXPLANATIONS,
    audience=GOOGLE,
)


def _content(payload: Mapping[str, Any]) -> tuple[dict[str, str], Mapping[str, str]]:
    """What is shown, and what the app gets."""
    title, text, data = payload.get("title"), payload.get("text"), payload.get("data")
    if not isinstance(text, str) or not text:
        raise Unsendable("content_missing")
    if title is not None and not isinstance(title, str):
        raise Unsendable("content_invalid")
    if data is None:
        data = {}
    if not isinstance(data, Mapping):
        raise Unsendable("data_invalid")
    if not all(isinstance(value, str) for value in data.values()):
        raise Unsendable("data_not_text")
    if any(key in RESERVED_KEYS or key.startswith(RESERVED_PREFIXES) for key in data):
        raise Unsendable("data_key_reserved")
    notification = {"title": title, "body": text} if title else {"body": text}
    characters = sum(map(len, (*notification.values(), *data.keys(), *data.values())))
    if 4 * characters > PAYLOAD_BYTES_MAX:
        try:
            size_bytes = sum(len(each.encode()) for each in (*notification.values(), *data.keys(), *data.values()))
        except UnicodeEncodeError:
            raise Unsendable("payload_not_unicode") from None
        if size_bytes > PAYLOAD_BYTES_MAX:
            raise Unsendable("payload_too_large")
    return notification, data


def _message_name(body: bytes) -> str | None:
    try:
        name = orjson.loads(body)["name"]
    except (orjson.JSONDecodeError, LookupError, TypeError):
        return None
    return name if _matches(_MESSAGE_NAME, name) else None


def _account_of(value: object) -> Mapping[str, Any] | None:
    """A key file, given as an object or as its text."""
    if isinstance(value, str):
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError:
            return None
    return value if isinstance(value, Mapping) else None


def _key_of(pem: object, *, check: bool) -> RSAPrivateKey | None:
    if not isinstance(pem, str):
        return None
    try:
        key = load_pem_private_key(pem.encode(), None, unsafe_skip_rsa_key_validation=not check)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # no PEM, or under a password, or of a kind unknown here
        return None
    return key if isinstance(key, RSAPrivateKey) else None


def _token_origin(account: Mapping[str, Any]) -> Origin | None:
    base = parse_base_url(account["token_uri"])
    return None if base is None else base.origin


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None
