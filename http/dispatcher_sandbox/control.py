"""The control API under ``/_sandbox/``: look at the ledger, change the behaviour. For tests in another process, and for people.

It has no authentication: a sandbox is for loopback addresses.
"""

from __future__ import annotations

import time
import urllib.parse
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import orjson

from dispatcher_sandbox import magic_phone
from dispatcher_sandbox.behaviour import Behaviour, changed
from dispatcher_sandbox.exchange import Exchange
from dispatcher_sandbox.fates import Fate
from dispatcher_sandbox.ledger import Accepted
from dispatcher_sandbox.magic import DOMAIN, TABLE
from dispatcher_sandbox.messages import JSON, Answer, Request
from dispatcher_sandbox.sendgrid.letters import letters_of
from dispatcher_sandbox.simulators import ACCOUNTS
from dispatcher_sandbox.webpush import subscription

PREFIX = b"/_sandbox"
PEM = b"Content-Type: application/x-pem-file\r\n"
_NOTHING = Answer(204)


class Control:
    """Answers control requests for one exchange. ``statistics`` gives the server's own numbers, ``urls`` are all ways in."""

    def __init__(
        self,
        exchange: Exchange,
        statistics: Callable[[], dict[str, Any]],
        urls: Mapping[str, str],
        ca_pem: bytes,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._clock = clock
        self._exchange = exchange
        self._urls = urls
        self._statistics = statistics
        self._routes: dict[tuple[str, str], Callable[[Request, dict[str, str]], Answer]] = {
            ("GET", "/"): self._index,
            ("GET", "/health"): lambda _request, _query: _json({"status": "ok"}),
            ("GET", "/statistics"): lambda _request, _query: _json(self._statistics()),
            ("GET", "/behaviour"): lambda _request, _query: _json(self._exchange.behaviour.document()),
            ("PUT", "/behaviour"): lambda request, _query: self._behave(request, Behaviour()),
            ("PATCH", "/behaviour"): lambda request, _query: self._behave(request, self._exchange.behaviour),
            ("GET", "/ledger"): self._ledger,
            ("GET", "/ledger/summary"): lambda _request, _query: _json(self._exchange.ledger.summary()),
            ("DELETE", "/ledger"): self._clear,
            ("GET", "/messages"): self._messages,
            ("GET", "/magic"): self._magic,
            ("GET", "/ca.pem"): lambda _request, _query: Answer(200, PEM, ca_pem),
            ("GET", "/webhooks"): lambda _request, _query: _json(self._webhooks()),
            ("GET", "/fcm/service-account"): self._key_file,
            ("GET", "/webpush/subscription"): self._subscription,
        }
        for provider in exchange.reporting.providers:
            self._routes["PUT", f"/webhooks/{provider}"] = partial(self._hook, provider)
            self._routes["DELETE", f"/webhooks/{provider}"] = partial(self._unhook, provider)
            self._routes["POST", f"/webhooks/{provider}/reports"] = self._report

    def answer(self, request: Request) -> Answer:
        """Answer one request whose target begins with the prefix."""
        path, _, query = request.target[len(PREFIX) :].decode("latin-1").partition("?")
        method = request.method.decode("latin-1")
        path = path.rstrip("/") or "/"
        route = self._routes.get((method, path))
        if route is None:
            allowed = sorted(verb for verb, known in self._routes if known == path)
            if not allowed:
                return _error(404, "no such resource; GET /_sandbox/ lists them")
            answer = _error(405, f"only {', '.join(allowed)} here")
            return answer._replace(headers=answer.headers + f"Allow: {', '.join(allowed)}\r\n".encode())
        return route(request, dict(urllib.parse.parse_qsl(query)))

    def _index(self, _request: Request, _query: dict[str, str]) -> Answer:
        resources = [f"{method} {PREFIX.decode()}{path}" for method, path in self._routes]
        return _json({"resources": resources, "urls": dict(self._urls)})

    def _behave(self, request: Request, start: Behaviour) -> Answer:
        try:
            self._exchange.behaviour = changed(start, orjson.loads(request.body))
        except orjson.JSONDecodeError:
            return _error(400, "the body is not JSON")
        except ValueError as error:
            return _error(422, str(error))
        return _json(self._exchange.behaviour.document())

    def _ledger(self, _request: Request, query: dict[str, str]) -> Answer:
        """Effects by name. ``min_effects=2`` shows duplicates only, ``notification_id`` one notification."""
        ledger = self._exchange.ledger
        wanted = query.get("notification_id")
        if wanted is not None:
            return _json({"notification_id": wanted, "effects": ledger.effects(wanted)})
        count_min = _whole(query.get("min_effects", "1"))
        if count_min is None:
            return _error(422, "min_effects must be a whole number")
        return _json(
            {
                "notifications": ledger.notifications.at_least(count_min),
                "idempotency_keys": ledger.idempotency_keys.at_least(count_min),
                "organizations": ledger.organizations.at_least(count_min),
            }
        )

    def _clear(self, _request: Request, _query: dict[str, str]) -> Answer:
        self._exchange.ledger.clear()
        return _NOTHING

    def _messages(self, _request: Request, query: dict[str, str]) -> Answer:
        """The latest accepted requests, newest first."""
        count = _whole(query.get("count", "20"))
        if count is None:
            return _error(422, "count must be a whole number")
        newest_first = list(self._exchange.ledger.recent)[::-1][:count]
        return _json({"messages": [_shown(accepted) for accepted in newest_first]})

    def _magic(self, _request: Request, _query: dict[str, str]) -> Answer:
        phones = {f"{magic_phone.PREFIX}{digits}": row.explanation for digits, row in magic_phone.TABLE.items()}
        return _json({f"{name}@{DOMAIN}": row.explanation for name, row in TABLE.items()} | phones)

    def _webhooks(self) -> dict[str, Any]:
        """The hooks, without their secrets, and what went over them."""
        reporting = self._exchange.reporting
        hooks = [{"provider": hook.provider, "url": hook.url, "account": hook.account} for hook in reporting.hooks()]
        return {"hooks": hooks, "pending": reporting.pending, **self._exchange.ledger.summary()["webhooks"]}

    def _hook(self, provider: str, request: Request, _query: dict[str, str]) -> Answer:
        """Set where a provider reports to: ``{"url", "account"?, "secrets"?}``; answers what the receiver has to know."""
        try:
            wanted = orjson.loads(request.body)
        except orjson.JSONDecodeError:
            return _error(400, "the body is not JSON")
        if not isinstance(wanted, dict) or not isinstance(wanted.get("url"), str):
            return _error(422, "url must be given")
        account, secrets = wanted.get("account"), wanted.get("secrets", {})
        if not (account is None or isinstance(account, str)):
            return _error(422, "account must be a text, or nothing for every account")
        if not isinstance(secrets, dict) or not all(isinstance(value, str) for value in secrets.values()):
            return _error(422, "secrets must map names to texts")
        try:
            shown = self._exchange.reporting.hook(provider, wanted["url"], account, secrets, self._clock())
        except ValueError as error:
            return _error(422, str(error))
        return _json(dict(shown))

    def _unhook(self, provider: str, _request: Request, _query: dict[str, str]) -> Answer:
        self._exchange.reporting.unhook(provider)
        return _NOTHING

    def _report(self, request: Request, _query: dict[str, str]) -> Answer:
        """Let something more happen to a message: ``{"notification_id", "fate"}``."""
        try:
            wanted = orjson.loads(request.body)
            notification_id, fate = wanted["notification_id"], Fate(wanted["fate"])
        except orjson.JSONDecodeError:
            return _error(400, "the body is not JSON")
        except (KeyError, TypeError, ValueError):
            return _error(422, f"notification_id and fate must be given; fates are {', '.join(Fate)}")
        exchange = self._exchange
        if not exchange.reporting.again(str(notification_id), fate, exchange.behaviour, self._clock()):
            return _error(404, "no such message is remembered, or nothing would be reported of it")
        return _NOTHING

    def _key_file(self, _request: Request, query: dict[str, str]) -> Answer:
        """A service account's key file. ``project_id`` names its project."""
        return _json(ACCOUNTS.key_file(query.get("project_id", "sandbox"), self._urls["http"]))

    def _subscription(self, _request: Request, query: dict[str, str]) -> Answer:
        """A browser's subscription of this ``name``; with ``server_key``, for the server of that VAPID key alone."""
        try:
            return _json(subscription(self._urls["http"], query.get("name", "browser"), query.get("server_key")))
        except ValueError as error:
            return _error(422, str(error))


def _shown(accepted: Accepted) -> dict[str, Any]:
    try:
        content: Any = orjson.loads(accepted.body)
    except orjson.JSONDecodeError:
        content = accepted.body.decode("utf-8", "replace")
    return {
        "provider": accepted.provider,
        "message_id": accepted.message_id,
        "at_s": accepted.at_s,
        "idempotency_key": accepted.idempotency_key,
        "correlations": [correlation._asdict() for correlation in accepted.correlations],
        "content": content,
        **({"letters": [letter._asdict() for letter in letters_of(accepted.body)]} if accepted.provider == "sendgrid" else {}),
    }


def _whole(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None


def _json(document: Any, status: int = 200) -> Answer:
    return Answer(status, JSON, orjson.dumps(document) + b"\n")


def _error(status: int, detail: str) -> Answer:
    return _json({"error": detail}, status)
