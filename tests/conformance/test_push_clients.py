"""The clients that others wrote for these services get on with our simulations of them, and see the errors they know."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from random import Random
from typing import Any
from urllib.parse import parse_qs

import firebase_admin
import google.auth.exceptions
import google.auth.transport.requests
import jwt
import orjson
import pytest
import trio
from firebase_admin import credentials, exceptions, messaging
from google.oauth2 import service_account
from pywebpush import WebPushException, webpush

from dispatcher.model import Channel, OrganizationId, ProviderConfig
from dispatcher.providers.fcm import SCOPE, bind
from dispatcher.providers.provider import Moment
from dispatcher_sandbox.sandbox import Sandbox, open_sandbox
from dispatcher_sandbox.simulators import ACCOUNTS
from dispatcher_sandbox.webpush import subscription
from push_accounts import VAPID_PRIVATE_KEY, VAPID_PUBLIC_KEY, rsa_pem
from push_accounts import service_account as service_account_file

pytestmark = pytest.mark.filterwarnings("ignore:Message.token is deprecated:DeprecationWarning")

DEVICE = "cRx0000Device:APA91b" + "x" * 120


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    async with open_sandbox() as sandbox:
        yield sandbox


@pytest.fixture
def firebase(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Iterator[firebase_admin.App]:
    """Google's own client, led to the sandbox."""
    monkeypatch.setattr(messaging._MessagingService, "FCM_URL", sandbox.url + "/v1/projects/{0}/messages:send")
    app = firebase_admin.initialize_app(credentials.Certificate(ACCOUNTS.key_file("hall", sandbox.url)), name=sandbox.url)
    yield app
    firebase_admin.delete_app(app)


async def blocking(call: Callable[..., Any], *args: Any, **named: Any) -> Any:
    """In a thread, because these clients know nothing of Trio."""
    with trio.fail_after(30):
        return await trio.to_thread.run_sync(partial(call, *args, **named))


def message(token: str = DEVICE, **fields: Any) -> messaging.Message:
    shown = messaging.Notification("Doors", "They open at seven.")
    return messaging.Message(token=token, notification=shown, data={"notification_id": "n-1"}, **fields)


async def test_firebase_admin_sends(sandbox: Sandbox, firebase: firebase_admin.App) -> None:
    rich = message(
        android=messaging.AndroidConfig(priority="high", ttl=60, collapse_key="doors"),
        apns=messaging.APNSConfig({"apns-priority": "10"}, messaging.APNSPayload(messaging.Aps(badge=1))),
        webpush=messaging.WebpushConfig(headers={"TTL": "60"}),
        fcm_options=messaging.FCMOptions(analytics_label="doors"),
    )
    name = await blocking(messaging.send, rich, app=firebase)
    checked = await blocking(messaging.send, message(), dry_run=True, app=firebase)

    assert name == sandbox.ledger.recent[-1].message_id
    assert checked.endswith("/messages/fake_message_id")
    assert (sandbox.ledger.effects("n-1"), sandbox.ledger.accepted) == (1, 1)


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("unregistered", messaging.UnregisteredError),
        ("sender", messaging.SenderIdMismatchError),
        ("third-party", messaging.ThirdPartyAuthError),
        ("invalid", exceptions.InvalidArgumentError),
        ("forbidden", exceptions.PermissionDeniedError),
    ],
)
async def test_firebase_admin_knows_the_errors(
    firebase: firebase_admin.App, name: str, error: type[exceptions.FirebaseError]
) -> None:
    with pytest.raises(error):
        await blocking(messaging.send, message(f"sandbox-{name}-a"), app=firebase)


async def test_google_auth_gets_a_token_for_its_own_key_only(sandbox: Sandbox) -> None:
    def fetch(key_file: dict[str, Any]) -> str:
        credentials: Any = service_account.Credentials
        account = credentials.from_service_account_info(key_file, scopes=[SCOPE])
        account.refresh(google.auth.transport.requests.Request())
        return str(account.token)

    key_file = ACCOUNTS.key_file("hall", sandbox.url)

    assert (await blocking(fetch, key_file)).startswith("ya29.")
    with pytest.raises(google.auth.exceptions.RefreshError, match="invalid_grant"):
        await blocking(fetch, {**key_file, "private_key": rsa_pem()})


def claims(assertion: str) -> dict[str, Any]:
    said: dict[str, Any] = jwt.decode(assertion, options={"verify_signature": False})
    return {name: value for name, value in said.items() if name not in ("iat", "exp")} | {"life_s": said["exp"] - said["iat"]}


def test_our_assertion_says_what_googles_own_client_says() -> None:
    key_file: Any = service_account_file()
    config: Any = ProviderConfig("1", OrganizationId("a"), Channel.PUSH, "fcm", {}, {"service_account": key_file}, revision=1)
    request = bind(config).token_request(Moment(time.time(), Random(1).randbytes))
    (ours,) = parse_qs(request.body.decode())["assertion"]
    account: Any = service_account.Credentials
    theirs = account.from_service_account_info(key_file, scopes=[SCOPE])._make_authorization_grant_assertion()

    assert claims(ours) == claims(theirs)
    assert jwt.get_unverified_header(ours) == jwt.get_unverified_header(theirs)


async def push(sandbox: Sandbox, name: str, server_key: str | None = VAPID_PUBLIC_KEY) -> Any:
    """A message by the client of those who also wrote the best known push service."""
    return await blocking(
        webpush,
        subscription(sandbox.url, name, server_key),
        orjson.dumps({"body": "Hello", "notification_id": "n-1"}),
        vapid_private_key=VAPID_PRIVATE_KEY,
        vapid_claims={"sub": "mailto:ops@hall.example"},
        ttl=60,
        timeout=10,
    )


async def test_pywebpush_sends_what_the_browser_reads(sandbox: Sandbox) -> None:
    response = await push(sandbox, "firefox")

    assert response.status_code == 201
    assert sandbox.ledger.effects("n-1") == 1
    assert orjson.loads(sandbox.ledger.recent[-1].body)["body"] == "Hello"


@pytest.mark.parametrize(
    ("name", "server_key", "status"),
    [("sandbox-gone", VAPID_PUBLIC_KEY, 410), ("sandbox-rate-limited", None, 429), ("a", "B" * 87, 401)],
)
async def test_pywebpush_knows_the_errors(sandbox: Sandbox, name: str, server_key: str | None, status: int) -> None:
    with pytest.raises(WebPushException) as refused:
        await push(sandbox, name, server_key)

    assert refused.value.response.status_code == status
