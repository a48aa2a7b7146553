"""Reading bodies: up to the limit, within the deadline, out of one budget."""

from __future__ import annotations

from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.errors import Overloaded
from dispatcher.problems import Refused
from dispatcher_http.body import LINGER_S, Body, BodyBudget, Gone, lingering

DISCONNECT = {"type": "http.disconnect"}


def message(body: bytes, *, more: bool = True) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


class Peer:
    """Sends messages, then nothing any more."""

    def __init__(self, *messages: dict[str, Any]) -> None:
        self._messages = iter(messages)
        self.delivered = 0

    async def receive(self) -> dict[str, Any]:
        for each in self._messages:
            self.delivered += 1
            return each
        await trio.sleep_forever()
        raise AssertionError


@given(st.lists(st.binary(max_size=20), max_size=8), st.integers(0, 80))
def test_a_body_within_the_limit_comes_whole_and_one_beyond_it_not_at_all(pieces: list[bytes], limit: int) -> None:
    whole = b"".join(pieces)
    budget = BodyBudget(1000)

    async def run() -> None:
        peer = Peer(*(message(piece) for piece in pieces), message(b"", more=False))
        with Body(peer.receive, budget) as body:
            if len(whole) <= limit:
                assert await body.read(limit, 1) == whole
                assert body.is_read
            else:
                with pytest.raises(Refused, match="body_too_large"):
                    await body.read(limit, 1)
                await body.discard()
                assert body.is_read

    trio.run(run)
    budget.take(1000)


async def test_a_body_in_one_message_is_not_copied() -> None:
    piece = b"x" * 100
    with Body(Peer(message(piece, more=False)).receive, BodyBudget(1000)) as body:
        assert await body.read(100, 1) is piece


async def test_a_slow_body_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    with Body(Peer(message(b"x")).receive, BodyBudget(1000)) as body:
        with pytest.raises(Refused, match="body_timeout"):
            await body.read(100, 30)
        assert trio.current_time() == 30


async def test_a_peer_that_leaves_is_gone() -> None:
    with Body(Peer(message(b"x"), DISCONNECT).receive, BodyBudget(1000)) as body:
        with pytest.raises(Gone):
            await body.read(100, 1)


async def test_the_budget_is_shared_and_given_back() -> None:
    budget = BodyBudget(100)
    with Body(Peer(message(b"x" * 80, more=False)).receive, budget) as first:
        await first.read(100, 1)
        with Body(Peer(message(b"x" * 10), message(b"x" * 11)).receive, budget) as second:
            with pytest.raises(Overloaded):
                await second.read(100, 1)
        budget.take(20)
        budget.give_back(20)
    budget.take(100)


async def test_throwing_away_ends_with_the_peer_or_with_patience(autojump_clock: trio.testing.MockClock) -> None:
    leaving = Peer(message(b"x"), DISCONNECT, message(b"y"))
    with Body(leaving.receive, BodyBudget(0)) as body:
        await body.discard()
    assert leaving.delivered == 2

    with Body(Peer(message(b"x")).receive, BodyBudget(0)) as body:
        await body.discard()
        assert not body.is_read
    assert trio.current_time() == LINGER_S


async def test_after_the_whole_body_there_is_nothing_to_throw_away() -> None:
    peer = Peer(message(b"x", more=False), message(b"next request"))
    with Body(peer.receive, BodyBudget(10)) as body:
        await body.read(10, 1)
        await body.discard()
    assert peer.delivered == 1


async def test_the_end_of_an_answer_waits_for_the_end_of_the_request(autojump_clock: trio.testing.MockClock) -> None:
    sent: list[tuple[float, str]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append((trio.current_time(), message["type"]))

    async def answer(*messages: dict[str, Any]) -> None:
        receive, patient_send = lingering(Peer(*messages).receive, send)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await trio.testing.wait_all_tasks_blocked()
            await patient_send({"type": "http.response.start"})
            await patient_send({"type": "http.response.body", "body": b"no", "more_body": True})
            await patient_send({"type": "http.response.body", "body": b"", "more_body": False})
            nursery.cancel_scope.cancel()

    await answer(message(b"x", more=False))
    await answer(DISCONNECT)
    assert [at_s for at_s, _ in sent] == [0] * 6
    await answer(message(b"x"))
    assert [at_s for at_s, _ in sent[6:]] == [0, 0, LINGER_S]
