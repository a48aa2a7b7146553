"""Generators as psycopg writes them, on a socket pair instead of a server."""

from __future__ import annotations

import socket
from collections.abc import Generator, Iterator
from contextlib import suppress

import psycopg
import pytest
import trio
from psycopg import errors, generators
from psycopg._cmodule import _psycopg
from psycopg.abc import PQGen, PQGenConn
from psycopg.waiting import Ready, Wait
from trio.testing import wait_all_tasks_blocked

from actors.io.pg_waiting import STEPS_WITHOUT_WAITING_MAX, Carrier, carry_connecting

Ends = tuple[socket.socket, socket.socket]


@pytest.fixture
def ends() -> Iterator[Ends]:
    """Two ends of a line; the first is the one waited on."""
    here, there = socket.socketpair()
    here.setblocking(False)
    with here, there:
        yield here, there


def fill(sock: socket.socket) -> None:
    """Write until the line takes no more."""
    with suppress(BlockingIOError):
        while True:
            sock.send(b"x" * 65536)


def asking(*wanted: Wait) -> PQGen[list[int]]:
    """Waits for each in turn and returns what it was told."""
    told = []
    for wait in wanted:
        while not (ready := (yield wait)):
            pass
        told.append(int(ready))
    return told


def asking_on(fileno: int, *wanted: Wait) -> PQGenConn[list[int]]:
    told = []
    for wait in wanted:
        ready = yield fileno, wait
        told.append(int(ready))
    return told


def test_the_accelerated_generators_are_the_ones_in_use() -> None:
    assert generators.execute is _psycopg.execute
    assert generators.connect is _psycopg.connect
    assert generators.pipeline_communicate is _psycopg.pipeline_communicate


async def test_a_generator_is_told_what_it_waited_for(ends: Ends) -> None:
    here, there = ends
    there.send(b"x")

    told = await Carrier().carry(asking(Wait.R, Wait.W, Wait.RW), here.fileno())

    assert told == [Ready.R, Ready.W, Ready.RW]


async def test_waiting_to_read_ends_when_something_arrives(ends: Ends) -> None:
    here, there = ends

    async with trio.open_nursery() as nursery:
        nursery.start_soon(Carrier().carry, asking(Wait.R), here.fileno())
        await wait_all_tasks_blocked()
        there.send(b"x")


async def test_a_blocked_writer_still_hears_its_peer(ends: Ends) -> None:
    """Else both sides could wait for the other one to read."""
    here, there = ends
    fill(here)
    told: list[int] = []

    async def carry() -> None:
        told.extend(await Carrier().carry(asking(Wait.RW), here.fileno()))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(carry)
        await wait_all_tasks_blocked()
        there.send(b"x")

    assert told == [Ready.R]


@pytest.mark.parametrize("wanted", [Wait.W, Wait.RW])
async def test_a_blocked_writer_goes_on_when_there_is_room(ends: Ends, wanted: Wait) -> None:
    here, there = ends
    fill(here)
    there.setblocking(False)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(Carrier().carry, asking(wanted), here.fileno())
        await wait_all_tasks_blocked()
        with suppress(BlockingIOError):
            while True:
                there.recv(1 << 20)


async def test_connecting_waits_for_what_the_generator_wants(ends: Ends) -> None:
    here, there = ends
    there.send(b"x")

    assert await carry_connecting(asking_on(here.fileno(), Wait.W, Wait.R)) == [Ready.W, Ready.R]


@pytest.mark.parametrize("wanted", [Wait.R, Wait.RW])
async def test_a_socket_closed_by_another_task_ends_the_wait(ends: Ends, wanted: Wait) -> None:
    here, _ = ends
    fill(here)

    async def carry() -> None:
        with pytest.raises(psycopg.OperationalError, match="was closed while it was in use"):
            await Carrier().carry(asking(wanted), here.fileno())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(carry)
        await wait_all_tasks_blocked()
        trio.lowlevel.notify_closing(here.fileno())


async def test_a_wait_on_no_socket_is_an_operational_error() -> None:
    with pytest.raises(psycopg.OperationalError):
        await Carrier().carry(asking(Wait.R), 1 << 20)
    with pytest.raises(psycopg.OperationalError):
        await carry_connecting(asking_on(1 << 20, Wait.R))


async def test_a_generator_cancelled_in_the_middle_can_be_carried_on(ends: Ends) -> None:
    here, there = ends
    generator = asking(Wait.R, Wait.W)
    with trio.move_on_after(0):
        await Carrier().carry(generator, here.fileno())
    there.send(b"x")

    assert await Carrier().carry(generator, here.fileno()) == [Ready.R, Ready.W]


async def test_a_long_run_without_waiting_lets_other_tasks_go_first(ends: Ends) -> None:
    here, _ = ends
    steps: list[int] = []
    seen: list[int] = []

    def always_ready() -> PQGen[None]:
        for step in range(4 * STEPS_WITHOUT_WAITING_MAX):
            steps.append(step)
            yield Wait.W

    async def other() -> None:
        for _ in range(3):
            seen.append(len(steps))
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        await Carrier().carry(always_ready(), here.fileno())

    assert seen[0] < len(steps)


async def test_many_generators_that_never_wait_let_other_tasks_go_first(ends: Ends) -> None:
    here, _ = ends
    carrier = Carrier()
    ran = False

    async def other() -> None:
        nonlocal ran
        ran = True

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        for _ in range(3 * STEPS_WITHOUT_WAITING_MAX):
            assert await carrier.carry(asking(), here.fileno()) == []
        assert ran


async def test_what_is_done_is_returned_even_to_a_task_that_was_cancelled_meanwhile(ends: Ends) -> None:
    here, _ = ends
    told = None
    with trio.CancelScope() as scope:
        scope.cancel()
        told = await Carrier(steps=STEPS_WITHOUT_WAITING_MAX).carry(asking(), here.fileno())

    assert told == []


async def test_a_timeout_of_nothing_still_looks_once(ends: Ends) -> None:
    here, there = ends
    there.send(b"x")

    assert await Carrier().carry_for(asking(Wait.R), here.fileno(), 0) == [Ready.R]


async def test_a_timeout_ends_the_wait(ends: Ends, autojump_clock: trio.testing.MockClock) -> None:
    here, _ = ends

    with pytest.raises(errors._WaitTimeout):
        await Carrier().carry_for(asking(Wait.R), here.fileno(), 3)

    assert trio.current_time() == pytest.approx(3)


async def test_an_outer_cancellation_is_no_timeout(ends: Ends, autojump_clock: trio.testing.MockClock) -> None:
    here, _ = ends

    with trio.move_on_after(1) as scope:
        await Carrier().carry_for(asking(Wait.R), here.fileno(), 3)

    assert scope.cancelled_caught


async def test_a_cancelled_connect_closes_its_generator(ends: Ends) -> None:
    """The generator owns the half-made connection."""
    here, _ = ends
    closed = False

    def connecting() -> Generator[tuple[int, Wait], Ready | int, None]:
        nonlocal closed
        try:
            yield here.fileno(), Wait.R
        finally:
            closed = True

    with trio.move_on_after(0):
        await carry_connecting(connecting())

    assert closed
