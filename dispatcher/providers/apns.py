"""Apple's push service: ``POST /3/device/{token}`` over HTTP/2, one notification to one device.

Everything constant is in the headers, which HTTP/2 compresses to a byte each; the path names the device. ``apns-id`` is the
notification's id: Apple gives it back, honours no idempotency key, and reports nothing later. The key signs a provider token that
every request carries, see :mod:`dispatcher.providers.provider_token`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any, Final

import orjson

from dispatcher.audience import APPLE
from dispatcher.http_message import Headers, HttpRequest, HttpResponse, Origin
from dispatcher.model import Channel, Delivery, ProviderConfig
from dispatcher.origins import BaseUrl, parse_base_url
from dispatcher.outcome import Outcome, OutcomeClass
from dispatcher.problems import Problem
from dispatcher.providers.apns_errors import EXPLANATIONS, read_refusal, row_of
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
from dispatcher.providers.provider_token import ProviderToken, signing_key

ENVIRONMENTS: Final[Mapping[str, Origin]] = MappingProxyType(
    {
        "production": Origin("https", "api.push.apple.com", 443),
        "sandbox": Origin("https", "api.sandbox.push.apple.com", 443),
    }
)
OTHER_PORT: Final = 2197
"""Apple's second port, for networks that let no other through."""
HOSTS: Final = tuple(origin._replace(port=port) for origin in ENVIRONMENTS.values() for port in (origin.port, OTHER_PORT))
PAYLOAD_BYTES_MAX: Final = 4096
TTL_S_MAX: Final = 2_592_000
"""Apple keeps a notification for a device that is away 30 days at most."""
PRIORITIES: Final = (10, 5, 1)
PUSH_TYPES: Final = ("alert", "background")
"""Those that a title, a text and data can make. A background notification shows nothing; the app gets both texts as data."""
PROBE_TOKEN: Final = b"0" * 64
"""No device: that Apple says so, and nothing else, shows that key and topic are right."""

_TOKEN = re.compile(r"(?:[0-9a-fA-F]{2}){32,100}")
_TEN = re.compile(r"[A-Z0-9]{10}")
_TOPIC = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,254}")
_SHORT = re.compile(r"[!-~](?:[ -~]{0,62}[!-~])?")
_MESSAGE_ID = re.compile(rb"[0-9A-Fa-f-]{36}")
_SETTINGS = (
    COMMON_SETTINGS
    | {"on_unknown"}  # and no key_retention_s: no key is sent that anybody could honour
    | {"topic", "environment", "push_type", "priority", "ttl_s", "collapse_id", "sound", "category", "thread_id"}
)


class BoundApns:
    """APNs with one key and one topic. What does not change from notification to notification is rendered once."""

    __slots__ = ("_after_alert", "_headers", "_is_alert", "_target", "_token", "_ttl_s", "limits", "origin")

    def __init__(self, config: ProviderConfig, token: ProviderToken) -> None:
        settings = config.settings
        base = base_url_of(settings, BaseUrl(ENVIRONMENTS[settings.get("environment") or "production"], ""))
        self.origin = base.origin._replace(scheme="h2")
        self.limits: Limits = limits_of(settings)
        self._target = base.target("/3/device/")
        self._token = token
        self._ttl_s: int | None = settings.get("ttl_s")
        push_type = settings.get("push_type") or "alert"
        self._is_alert = push_type == "alert"
        priority = settings.get("priority") or (10 if self._is_alert else 5)
        headers: list[tuple[bytes, bytes]] = [
            (b"apns-topic", settings["topic"].encode("ascii")),
            (b"apns-push-type", push_type.encode("ascii")),
            (b"apns-priority", b"%d" % priority),
        ]
        if settings.get("collapse_id"):
            headers.append((b"apns-collapse-id", settings["collapse_id"].encode("ascii")))
        self._headers: Headers = tuple(headers)
        further = {"sound": "sound", "category": "category", "thread_id": "thread-id"}
        aps = {name: settings[setting] for setting, name in further.items() if settings.get(setting)}
        self._after_alert = (b"," + orjson.dumps(aps)[1:] if aps else b"}") if self._is_alert else b""

    def __repr__(self) -> str:
        return f"<BoundApns {self.origin}>"

    def request(self, delivery: Delivery, moment: Moment) -> HttpRequest:
        """One notification to one device. Raises Unsendable for a payload or recipient that APNs can not take."""
        if _TOKEN.fullmatch(delivery.recipient) is None:
            raise Unsendable("recipient_invalid")
        try:
            body = self._body(delivery.payload)
        except orjson.JSONEncodeError:
            raise Unsendable("payload_not_unicode") from None
        if len(body) > PAYLOAD_BYTES_MAX:
            raise Unsendable("payload_too_large")
        own: list[tuple[bytes, bytes]] = [(b"apns-id", delivery.id.encode("ascii"))]
        expires_at_s = delivery.expires_at_s
        if self._ttl_s is not None:
            last_s = moment.unix_s + self._ttl_s if self._ttl_s else 0
            expires_at_s = last_s if expires_at_s is None else min(expires_at_s, last_s)
        if expires_at_s is not None:
            own.append((b"apns-expiration", b"%d" % expires_at_s))
        return self._post(delivery.recipient.encode("ascii"), own, body, moment)

    def classify(self, response: HttpResponse, now_unix_s: float) -> Outcome:
        """What APNs' answer means, by the tables."""
        if 200 <= response.status < 300:
            name = response.header(b"apns-id")
            known = name is not None and _MESSAGE_ID.fullmatch(name) is not None
            return Outcome(OutcomeClass.DELIVERED, "accepted", name.decode("ascii").lower() if name and known else None)
        refusal = read_refusal(response.body)
        row = row_of(response.status, refusal.reason)
        return row.outcome(since_unix_s=refusal.since_unix_s if row.kind is OutcomeClass.SUPPRESS else None)

    def probe(self, moment: Moment) -> HttpRequest:
        """A notification that must not be kept, to a device that there is not."""
        body = b'{"aps":{"alert":{"body":"probe"}}}' if self._is_alert else b'{"aps":{"content-available":1}}'
        return self._post(PROBE_TOKEN, [(b"apns-expiration", b"0")], body, moment)

    def probed(self, response: HttpResponse, now_unix_s: float) -> Probed:
        """Right when nothing but the device was refused."""
        outcome = self.classify(response, now_unix_s)
        if outcome.kind is OutcomeClass.DELIVERED or outcome.code == "bad_device_token":
            return Probed(True, "accepted", "Apple accepts the key, the team and the topic.")
        return Probed(False, outcome.code, EXPLANATIONS.get(outcome.code, "Apple did not answer as it should. Try again."))

    def _post(self, device: bytes, own: list[tuple[bytes, bytes]], body: bytes, moment: Moment) -> HttpRequest:
        authorization = (b"authorization", b"bearer " + self._token.at(moment.unix_s))
        return HttpRequest(self.origin, b"POST", self._target + device, (authorization, *self._headers, *own), body)

    def _body(self, payload: Mapping[str, Any]) -> bytes:
        title, text, data = payload.get("title"), payload.get("text"), payload.get("data")
        if not isinstance(text, str) or not text:
            raise Unsendable("content_missing")
        if title is not None and not isinstance(title, str):
            raise Unsendable("content_invalid")
        if data is not None and not isinstance(data, Mapping):
            raise Unsendable("data_invalid")
        if data and "aps" in data:
            raise Unsendable("data_key_reserved")
        if not self._is_alert:
            texts = {"text": text} if title is None else {"title": title, "text": text}
            return orjson.dumps({"aps": {"content-available": 1}, **texts, **(data or {})})
        head = b'{"aps":{"alert":{"title":' + orjson.dumps(title) + b',"body":' if title else b'{"aps":{"alert":{"body":'
        rest = b"," + orjson.dumps(data)[1:] if data else b"}"
        return b"".join((head, orjson.dumps(text), b"}", self._after_alert, rest))


def settings_problems(settings: Mapping[str, Any], origins_extra: Collection[str] = ()) -> list[Problem]:
    """What is wrong with the settings of a configuration."""
    problems = unknown_fields(settings, _SETTINGS, "/settings")
    common = common_problems(settings, {*map(str, HOSTS), *origins_extra})
    base_url = settings.get("base_url")
    base = parse_base_url(base_url) if isinstance(base_url, str) else None
    if base is not None and base.origin.scheme != "https":
        common = [problem for problem in common if problem.pointer != "/settings/base_url"]
        common.append(invalid("/settings/base_url", "must be an https URL: APNs speaks HTTP/2 over TLS only"))
    problems += common
    problems += unknown_problems(settings, askable=False)
    if settings.get("topic") is None:
        problems.append(missing("/settings/topic", "the bundle id of the app"))
    elif not _matches(_TOPIC, settings["topic"]):
        problems.append(invalid("/settings/topic", "must be the bundle id of an app, such as org.example.tickets"))
    environment, push_type, priority = (settings.get(name) for name in ("environment", "push_type", "priority"))
    if environment is not None and environment not in ENVIRONMENTS:
        problems.append(invalid("/settings/environment", "must be production or sandbox"))
    if push_type is not None and push_type not in PUSH_TYPES:
        problems.append(invalid("/settings/push_type", "must be alert or background"))
    if priority is not None and (isinstance(priority, bool) or priority not in PRIORITIES):
        problems.append(invalid("/settings/priority", "must be 10, 5 or 1"))
    elif priority == 10 and push_type == "background":
        problems.append(invalid("/settings/priority", "must not be 10 for a background notification"))
    ttl_s = settings.get("ttl_s")
    if ttl_s is not None and not (isinstance(ttl_s, int) and not isinstance(ttl_s, bool) and 0 <= ttl_s <= TTL_S_MAX):
        problems.append(invalid("/settings/ttl_s", f"must be a whole number of seconds from 0 to {TTL_S_MAX}"))
    for name in ("collapse_id", "sound", "category", "thread_id"):
        if settings.get(name) is not None and not _matches(_SHORT, settings[name]):
            problems.append(invalid(f"/settings/{name}", "must be 1 to 64 printable ASCII characters"))
    return problems


def credentials_problems(credentials: Mapping[str, Any]) -> list[Problem]:
    """What is wrong with the credentials of a configuration."""
    problems = unknown_fields(credentials, {"team_id", "key_id", "private_key"}, "/credentials")
    for name, what in (("team_id", "the team's id in the developer account"), ("key_id", "the id of the key")):
        if credentials.get(name) is None:
            problems.append(missing(f"/credentials/{name}", f"{what}, ten characters"))
        elif not _matches(_TEN, credentials[name]):
            problems.append(invalid(f"/credentials/{name}", "must be ten capital letters and digits"))
    if credentials.get("private_key") is None:
        problems.append(missing("/credentials/private_key", "the text of the .p8 file that came with the key"))
    elif signing_key(credentials["private_key"]) is None:
        problems.append(
            invalid("/credentials/private_key", "must be a P-256 key in PEM without a password: the text of the .p8 file")
        )
    return problems


def bind(config: ProviderConfig, origins_extra: Collection[str] = ()) -> BoundApns:
    """APNs with one stored configuration. Raises Unbindable when it does not pass the checks it once passed."""
    problems = settings_problems(config.settings, origins_extra) + credentials_problems(config.credentials)
    key = signing_key(config.credentials.get("private_key"))
    if problems or key is None:
        raise Unbindable(problems[0])
    return BoundApns(config, ProviderToken(config.credentials["team_id"], config.credentials["key_id"], key))


APNS: Final = Provider(
    "apns",
    frozenset({Channel.PUSH}),
    settings_problems,
    credentials_problems,
    bind,
    explanations=EXPLANATIONS,
    audience=APPLE,
)


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None
