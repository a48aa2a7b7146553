from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.http_message import Origin
from dispatcher.subscriptions import normal_subscription, parse_subscription
from push_accounts import BROWSER_AUTH, BROWSER_PUBLIC_KEY, browser, raw


def test_what_a_browser_hands_out_is_read_whole() -> None:
    found = parse_subscription(browser("https://wns2-par02p.notify.windows.com/w/?token=BQYAAAD%2bx%3d"))

    assert found is not None
    assert found.origin == Origin("https", "wns2-par02p.notify.windows.com", 443)
    assert found.target == b"/w/?token=BQYAAAD%2bx%3d"
    assert (found.public_key, found.auth) == (raw(BROWSER_PUBLIC_KEY), raw(BROWSER_AUTH))


@pytest.mark.parametrize("target", ["/", "/a/", "/a?", "/a?b=c/d", "/a:b/c,d"])
def test_an_endpoint_is_kept_to_the_letter(target: str) -> None:
    found = parse_subscription(browser(f"https://push.example:8443{target}"))

    assert found is not None
    assert (found.origin, found.target) == (Origin("https", "push.example", 8443), target.encode())


def test_either_alphabet_of_base64_is_read() -> None:
    standard = BROWSER_PUBLIC_KEY.replace("-", "+").replace("_", "/") + "="

    assert parse_subscription(browser(p256dh=standard)) == parse_subscription(browser())


@pytest.mark.parametrize(
    "endpoint",
    [
        "",
        "push.example/a",
        "https://push.example",
        "ftp://push.example/a",
        "https://user:word@push.example/a",
        "https://push.example/a#b",
        "https://push.example/a b",
        "https://push.example/a\r\nx: y",
        "https://push.example/\u00fc",
        "https://push.example\\@elsewhere/a",
        "https://push.example/a\\b",
        "https://push.example:0/a",
        "https://push.example:99999/a",
        "https://[::1/a",
        "https:///a",
        "https://push.example/" + "a" * 2048,
        None,
        7,
    ],
)
def test_an_endpoint_that_is_no_url_of_a_service_is_refused(endpoint: Any) -> None:
    assert parse_subscription(browser(endpoint)) is None


@pytest.mark.parametrize(
    "keys",
    [
        {"auth": ""},
        {"auth": "AAAA"},
        {"auth": "!" * 22},
        {"auth": "\u00fc" * 22},
        {"p256dh": BROWSER_AUTH},
        {"p256dh": "A" * 87},
        {"p256dh": 7},
        {"p256dh": None},
    ],
)
def test_keys_that_are_none_are_refused(keys: dict[str, Any]) -> None:
    assert parse_subscription(browser(**keys)) is None


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"endpoint":"https://push.example/a"}', '{"keys":[],"endpoint":""}'])
def test_what_is_no_subscription_is_refused(text: str) -> None:
    assert parse_subscription(text) is None


PLAIN = st.text(st.characters(exclude_categories=["Cs"]))
KEYS = st.dictionaries(st.sampled_from(["p256dh", "auth"]), PLAIN | st.integers(0, 9))
DOCUMENTS = st.fixed_dictionaries({"endpoint": PLAIN.map("https://{}".format), "keys": KEYS}).map(orjson.dumps).map(bytes.decode)


@given(st.text() | DOCUMENTS | PLAIN.map(browser))
def test_nothing_makes_it_raise(text: str) -> None:
    parse_subscription(text)


def test_one_browser_is_one_recipient_however_its_page_wrote_it_down() -> None:
    document = orjson.loads(browser())
    turned = {"keys": dict(reversed(document["keys"].items())), "endpoint": document["endpoint"], "options": {"a": 1}}
    normal = normal_subscription(browser())

    assert normal_subscription(orjson.dumps(turned, option=orjson.OPT_INDENT_2).decode()) == normal == normal_subscription(normal)
    assert parse_subscription(normal) == parse_subscription(browser())
    assert "expirationTime" not in normal
    assert normal_subscription("a:APA91b") == "a:APA91b"


def test_it_shows_nothing_of_itself() -> None:
    found = parse_subscription(browser("https://push.example/secret"))

    assert "secret" not in repr(found)
    assert repr(raw(BROWSER_AUTH)) not in repr(found)
