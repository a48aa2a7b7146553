"""Messages to phone numbers for the tests of the sandbox: without sockets, by our own clients and by foreign ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import requests
from requests.structures import CaseInsensitiveDict
from twilio.http import HttpClient
from twilio.http.response import Response
from twilio.rest import Client

from dispatcher.http_message import HttpRequest, HttpResponse
from dispatcher_sandbox.behaviour import Behaviour
from dispatcher_sandbox.callbacks import Callback
from dispatcher_sandbox.exchange import Exchange, Reply
from dispatcher_sandbox.ledger import Ledger
from dispatcher_sandbox.messages import Answer, Request
from dispatcher_sandbox.simulators import SIMULATORS
from twilio_world import ACCOUNT, TOKEN

NOW = 1_700_000_000.0
MAGIC = "+1500555"


def sandbox(**settings: Any) -> Exchange:
    """A sandbox without a socket."""
    return Exchange(SIMULATORS, Ledger(), Behaviour(**settings), 0)


def handed(exchange: Exchange, request: HttpRequest) -> Reply:
    """A request of ours, handed to it as if it had come over the wire."""
    return exchange.handle(Request(request.method, request.target, dict(request.headers), request.body), NOW)


def answered(exchange: Exchange, request: HttpRequest) -> HttpResponse:
    """The same, when an answer must come."""
    answer = handed(exchange, request).answer
    assert answer is not None
    return response(answer)


def response(answer: Answer) -> HttpResponse:
    """An answer as our clients see it."""
    lines = [line.partition(b": ") for line in answer.headers.split(b"\r\n") if line]
    return HttpResponse(answer.status, [(name.lower(), value) for name, _, value in lines], answer.body)


def calls(exchange: Exchange, now_s: float = NOW) -> Sequence[Callback]:
    """The calls that it makes to its hooks now."""
    found = [parcel.callback(now_s) for parcel in exchange.reporting.due(exchange.behaviour, now_s)]
    return [callback for callback in found if callback is not None]


class Wire(HttpClient):  # type: ignore[misc]
    """Under Twilio's own client: what ``requests`` would have written goes to a sandbox."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def request(
        self,
        method: str,
        url: str,
        params: Any = None,
        data: Any = None,
        headers: Any = None,
        auth: Any = None,
        timeout: Any = None,
        allow_redirects: bool = False,
    ) -> Response:
        """One request and its answer."""
        written = requests.Request(method, url, headers=headers, params=params, data=data, auth=auth).prepare()
        assert written.path_url is not None
        body: Any = written.body or b""
        request = Request(
            method.encode(),
            str(written.path_url).encode(),
            {name.lower().encode(): str(value).encode() for name, value in written.headers.items()},
            body if isinstance(body, bytes) else body.encode(),
        )
        answer = self._exchange.handle(request, NOW).answer
        assert answer is not None
        found = CaseInsensitiveDict((name.decode(), value.decode()) for name, value in response(answer).headers)
        return Response(answer.status, answer.body.decode(), found)


def sdk(exchange: Exchange, user: str = ACCOUNT, secret: str = TOKEN) -> Client:
    """Twilio's own client."""
    return Client(user, secret, ACCOUNT, http_client=Wire(exchange))
