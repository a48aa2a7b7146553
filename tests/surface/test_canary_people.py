"""No user, address, token or link stands anywhere but where it is kept, whatever is done with it."""

from __future__ import annotations

from typing import Any

import pytest

from actors.store import preferences, users
from canary import MARK, RECIPIENT, USER, Watch, logged, monitored
from dispatcher.contacts import address_of
from dispatcher.model import Channel, OrganizationId
from dispatcher.unsubscribe import PATH, Links, Unsubscription
from dispatcher.vault import parse_keys
from running import KEYS, Customer, dispatching, mail

PUBLIC_URL = "https://notify.example.org"
TOKEN = f"token-{MARK}-" + "t" * 60
PROFILE = {"locale": "de", "contact_points": {"email": [RECIPIENT], "sms": ["+15551234567"]}}
REFUSED: tuple[tuple[str, str, Any], ...] = (
    ("PUT", f"users/{USER}", {"locale": MARK, "time_zone": MARK, MARK: MARK, "contact_points": {"email": [MARK], MARK: [MARK]}}),
    ("PUT", f"users/{USER}", {"quiet_hours": {"start": MARK, "end": MARK, "days": [MARK], MARK: MARK}}),
    ("PUT", f"users/{USER}%00", PROFILE),
    ("POST", "users", {"users": [{"id": f"{MARK}/", "locale": MARK}, {"id": MARK}, {"id": MARK}, MARK, {MARK: MARK}]}),
    ("POST", f"users/{USER}/contact_points", {"channel": MARK, "recipient": MARK}),
    ("PUT", f"users/{USER}/push_tokens", {"token": f"{{{MARK}", "app": f"\n{MARK}", "platform": MARK, "expires_at": MARK}),
    ("POST", f"users/{USER}/push_tokens/remove", {"token": f"{{{MARK}"}),
    ("PUT", f"users/{USER}/preferences", {"preferences": [{"topic": RECIPIENT, "channel": MARK, "allowed": MARK}, MARK]}),
    ("GET", f"users/{USER}/{MARK}", None),
    ("GET", f"users/{USER}/export?after={MARK}", None),
    ("DELETE", f"users/{USER}/contact_points/{MARK}", None),
)


def explodes(*args: object, **kwargs: object) -> Any:
    """A fault of ours that has a person's data in its text."""
    raise RuntimeError(f"{RECIPIENT} {args!r}")


async def links_of(acme: Customer, watch: Watch) -> None:
    """Look at links and click them, for a user and for who is none, and such as are wrong."""
    keys = Links(PUBLIC_URL, parse_keys(KEYS))
    whose = {"user_id": USER}, {"address": address_of(Channel.EMAIL, RECIPIENT)}, {"user_id": f"nobody-{MARK}"}
    for each in whose:
        wish = Unsubscription(OrganizationId("acme"), Channel.EMAIL, **each, issued_at_s=2_000_000_000)
        path = PATH + keys.token(wish)
        watch.secrets.append(path[-40:])
        for answer in (
            await acme.client.get(acme.url + path),
            await acme.client.post(acme.url + path, data={"List-Unsubscribe": "One-Click"}),
        ):
            assert watch.answer(answer).status_code == 200
        assert watch.answer(await acme.client.post(acme.url + path, data={MARK: MARK})).status_code == 400
        assert watch.answer(await acme.client.get(f"{acme.url}{path}{MARK}")).status_code == 404


async def test_people_leave_no_trace(
    database_url: str, redis_url: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Watch()
    with logged(watch), monitored(watch, redis_url):
        async with dispatching(database_url, redis_url, public_url=PUBLIC_URL) as running:
            acme = await running.customer("acme")
            stored = (
                await acme.call("PUT", f"users/{USER}", PROFILE),
                await acme.call("PUT", f"users/{USER}/push_tokens", {"token": TOKEN, "app": MARK}),
                await acme.call("GET", f"users/{USER}/export"),
            )
            assert [answer.status_code for answer in stored] == [200, 200, 200]
            for method, path, document in REFUSED:
                refused = watch.answer(await acme.call(method, path, document))
                assert refused.status_code in (200, 400, 404, 422), (method, path)
                assert watch.found() == [], (method, path)
            await acme.call("POST", "users", {"users": [{"id": MARK}]})
            watch.answer(await acme.call("POST", "notifications", mail(RECIPIENT, user_id=USER)))
            await links_of(acme, watch)
            with monkeypatch.context() as patch:
                for module, name in ((users, "read"), (preferences, "opt_out")):
                    patch.setattr(module, name, explodes)
                answer = watch.answer(await acme.call("GET", f"users/{USER}"))
                assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")

            watch.postgres(database_url)
            erased = watch.answer(await acme.call("POST", f"users/{USER}/erase"))
            assert erased.json()["users"] == 1
            watch.saw("the metrics", (await running.client.get(f"{running.url}/metrics")).content)
            watch.postgres(database_url)
            watch.redis(redis_url)
    for name, text in zip(("standard output", "standard error"), capfd.readouterr(), strict=True):
        watch.saw(name, text)

    assert watch.found() == []
