"""Keys: what is asked of the store and how often, how long an answer is believed, and what a key is worth elsewhere."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
import trio
import trio.testing

from actors.store.api_keys import ApiKey, Scope, compose, digest
from dispatcher.errors import StoreUnavailable
from dispatcher.model import OrganizationId
from dispatcher.problems import Refused
from dispatcher_http import auth
from dispatcher_http.auth import Authenticator, Principal, key_in, key_in_subprotocols

KEY = compose(b"k" * 32)
GOOD = f"Bearer {KEY}".encode()
CACHE_S = 30.0


class Store:
    """Knows one key; counts the questions."""

    def __init__(self) -> None:
        self.digests = {digest(KEY.encode())}
        self.asked = 0
        self.most_at_once = 0
        self._at_once = 0
        self.failure: Exception | None = None
        self.delay_s = 1.0

    async def find(self, key_digest: bytes) -> ApiKey | None:
        self.asked += 1
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        await trio.sleep(self.delay_s)
        self._at_once -= 1
        if self.failure is not None:
            raise self.failure
        if key_digest not in self.digests:
            return None
        now = datetime(2026, 1, 1, tzinfo=UTC)
        return ApiKey("id", OrganizationId("acme"), "test", frozenset({Scope.STREAM_READ}), now, None)


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def authenticator(store: Store) -> Authenticator:
    return Authenticator(store.find, CACHE_S, trio.current_time)


async def test_a_known_key_is_asked_for_once(
    authenticator: Authenticator, store: Store, autojump_clock: trio.testing.MockClock
) -> None:
    first = await authenticator.principal(GOOD)
    again = await authenticator.principal(GOOD)

    assert first is again
    assert first.organization_id == "acme"
    assert first.scopes == frozenset({Scope.STREAM_READ})
    assert store.asked == 1


async def test_a_revoked_key_is_honoured_no_longer_than_the_cache_time_from_before_the_question(
    authenticator: Authenticator, store: Store, autojump_clock: trio.testing.MockClock
) -> None:
    asked_at_s = trio.current_time()
    await authenticator.principal(GOOD)
    store.digests.clear()

    await trio.sleep_until(asked_at_s + CACHE_S - 0.001)
    await authenticator.principal(GOOD)
    await trio.sleep_until(asked_at_s + CACHE_S)
    with pytest.raises(Refused):
        await authenticator.principal(GOOD)


async def test_a_crowd_with_one_new_key_asks_as_often_as_look_ups_are_allowed_at_once(
    authenticator: Authenticator, store: Store, autojump_clock: trio.testing.MockClock
) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(authenticator.principal, GOOD)

    assert store.asked == auth.LOOKUPS_MAX


async def test_wrong_keys_do_not_crowd_the_store(
    authenticator: Authenticator, store: Store, autojump_clock: trio.testing.MockClock
) -> None:
    refused = 0

    async def attempt(number: int) -> None:
        nonlocal refused
        with pytest.raises(Refused):
            await authenticator.principal(b"Bearer " + compose(number.to_bytes(32, "big")).encode())
        refused += 1

    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(attempt, number)

    assert (refused, store.asked, store.most_at_once) == (20, 20, auth.LOOKUPS_MAX)


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        b"",
        b"Bearer",
        b"Bearer ",
        KEY.encode(),
        b"Basic " + KEY.encode(),
        b"Bearer ndk_short",
        GOOD + b"A",
        GOOD + b" x",
        b"\xff",
    ],
)
async def test_what_cannot_be_a_key_is_refused_without_a_question(
    authenticator: Authenticator, store: Store, authorization: bytes | None
) -> None:
    with pytest.raises(Refused) as refused:
        await authenticator.principal(authorization)

    assert refused.value.problem.status == 401
    assert store.asked == 0


def test_the_scheme_is_read_in_any_case() -> None:
    assert key_in(b"bEARER  " + KEY.encode()) == KEY.encode()


async def test_a_store_that_is_away_refuses_nobody(
    authenticator: Authenticator, store: Store, autojump_clock: trio.testing.MockClock
) -> None:
    store.failure = StoreUnavailable("away")
    with pytest.raises(StoreUnavailable):
        await authenticator.principal(GOOD)

    store.failure = None
    assert (await authenticator.principal(GOOD)).organization_id == "acme"


async def test_the_cache_holds_only_so_many_keys(
    authenticator: Authenticator, store: Store, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    monkeypatch.setattr(auth, "KEYS_CACHED_MAX", 2)
    keys = [compose(bytes([number]) * 32).encode() for number in range(3)]
    store.digests = {digest(key) for key in keys}
    for key in keys:
        await authenticator.principal(b"Bearer " + key)
    assert store.asked == 3

    await authenticator.principal(b"Bearer " + keys[2])
    await authenticator.principal(b"Bearer " + keys[1])
    assert store.asked == 3
    await authenticator.principal(b"Bearer " + keys[0])
    assert store.asked == 4


def test_an_organizations_path_comes_before_scopes() -> None:
    principal = Principal("id", OrganizationId("acme"), frozenset())

    with pytest.raises(Refused, match="organization_not_found"):
        principal.require("globex", Scope.STREAM_READ)
    with pytest.raises(Refused, match="scope_missing"):
        principal.require("acme", Scope.STREAM_READ)


@pytest.mark.parametrize(
    ("offered", "authorization"),
    [
        (["bearer", KEY], GOOD),
        (["bearer"], None),
        ([KEY], None),
        ([], None),
        (["bearer", KEY, "x"], None),
        (["chat", KEY], None),
    ],
)
def test_a_browser_offers_its_key_as_the_second_subprotocol(offered: list[str], authorization: bytes | None) -> None:
    assert key_in_subprotocols(offered) == authorization


def test_no_repr_shows_a_key() -> None:
    principal = Principal("id", OrganizationId("acme"), frozenset())

    assert KEY not in repr(principal)
