from __future__ import annotations

from attrs import define
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from actors.io.http_slots import Handover, Opening, Site, Slots, Waiter
from dispatcher.http_message import Origin

A, B, C = (Origin("http", name, 80) for name in ("a", "b", "c"))


@define(eq=False)
class Connection:
    """All the policy needs of one, and whose it is."""

    site: Site[Connection]
    idle_since_s: float = 0.0


class Shell:
    """Carries out what the policy decides, in the plainest way."""

    def __init__(self, per_origin: int = 2, total: int = 3, waiting: int = 100) -> None:
        self.slots: Slots[Connection] = Slots(per_origin, total, waiting)
        self.closed: list[Connection] = []
        self.served: list[tuple[int, Connection | None]] = []
        self.refused: list[int] = []
        self.waiters: dict[int, Waiter[Connection]] = {}

    def acquire(self, origin: Origin, name: int = 0) -> Connection | None:
        """A connection, reused or new; None when the caller ``name`` was queued."""
        connection = self.slots.reuse(origin)
        if connection is not None:
            return connection
        site, opening = self.slots.take(origin)
        if opening is None:
            waiter = self.slots.wait(
                site, lambda connection: self.served.append((name, connection)), lambda: self.refused.append(name)
            )
            assert waiter is not None
            self.waiters[name] = waiter
            return None
        if opening.surplus is not None:
            self.closed.append(opening.surplus)
        return Connection(site)

    def must_acquire(self, origin: Origin) -> Connection:
        connection = self.acquire(origin)
        assert connection is not None
        return connection

    def release(self, connection: Connection, now_s: float = 0.0) -> None:
        self.carry_out(self.slots.release(connection.site, connection, now_s))

    def discard(self, connection: Connection) -> None:
        self.carry_out(self.slots.discard(connection.site))

    def carry_out(self, handover: Handover[Connection] | None) -> None:
        if handover is not None:
            if handover.surplus is not None:
                self.closed.append(handover.surplus)
            handover.waiter.wake(handover.connection)


def test_the_connection_used_last_is_used_first() -> None:
    shell = Shell()
    first, second = shell.must_acquire(A), shell.must_acquire(A)
    shell.release(first)
    shell.release(second)

    assert [shell.acquire(A), shell.acquire(A)] == [second, first]


def test_an_origin_never_exceeds_its_limit_and_others_are_not_held_up_by_it() -> None:
    shell = Shell(per_origin=1, total=3)

    assert shell.acquire(A) is not None
    assert shell.acquire(A) is None
    assert shell.acquire(B) is not None


def test_the_pool_never_exceeds_its_limit() -> None:
    shell = Shell(per_origin=2, total=3)
    for origin in (A, A, B):
        shell.must_acquire(origin)

    assert shell.acquire(C) is None
    assert shell.slots.places == 3


def test_a_full_pool_gives_up_the_connection_idle_longest_for_another_origin() -> None:
    shell = Shell(per_origin=2, total=3)
    old, young, other = shell.must_acquire(A), shell.must_acquire(A), shell.must_acquire(B)
    shell.release(old, now_s=1.0)
    shell.release(other, now_s=2.0)
    shell.release(young, now_s=3.0)

    assert shell.acquire(C) is not None
    assert shell.closed == [old]
    assert shell.slots.places == 3


def test_a_released_connection_goes_to_whoever_waited_longest_for_its_origin() -> None:
    shell = Shell(per_origin=1)
    connection = shell.must_acquire(A)
    shell.acquire(A, name=1)
    shell.acquire(A, name=2)

    shell.release(connection)
    shell.release(connection)

    assert shell.served == [(1, connection), (2, connection)]


def test_the_place_of_a_closed_connection_goes_to_whoever_waited_longest() -> None:
    shell = Shell(per_origin=1)
    connection = shell.must_acquire(A)
    shell.acquire(A, name=1)

    shell.discard(connection)

    assert shell.served == [(1, None)]
    assert shell.slots.places == 1


def test_of_two_origins_waiting_for_the_pools_limit_the_one_that_waited_longer_is_served() -> None:
    shell = Shell(per_origin=1, total=1)
    connection = shell.must_acquire(A)
    shell.acquire(B, name=1)
    shell.acquire(A, name=2)

    shell.release(connection)

    assert shell.served == [(1, None)]
    assert shell.closed == [connection]


def test_a_waiter_held_back_by_its_own_origins_limit_does_not_hold_back_others() -> None:
    shell = Shell(per_origin=1, total=2)
    shell.must_acquire(A)
    other = shell.must_acquire(B)
    shell.acquire(A, name=1)
    shell.acquire(C, name=2)

    shell.discard(other)

    assert shell.served == [(2, None)]


def test_who_leaves_the_queue_is_not_served() -> None:
    shell = Shell(per_origin=1)
    connection = shell.must_acquire(A)
    shell.acquire(A, name=1)
    shell.acquire(A, name=2)

    shell.slots.forget(shell.waiters[1])
    shell.release(connection)

    assert shell.served == [(2, connection)]


def test_a_full_queue_takes_nobody() -> None:
    shell = Shell(per_origin=1, waiting=1)
    connection = shell.must_acquire(A)
    shell.acquire(A, name=1)

    assert shell.slots.wait(connection.site, lambda _: None, lambda: None) is None
    assert shell.slots.waiting == 1


def test_connections_expire_once_idle_for_the_time_allowed_and_not_before() -> None:
    shell = Shell()
    first, second = shell.must_acquire(A), shell.must_acquire(A)
    shell.release(first, now_s=1.0)
    shell.release(second, now_s=2.0)

    assert shell.slots.longest_idle_s() == 1.0
    assert shell.slots.expire(10.9, 10.0) == []
    assert shell.slots.expire(11.0, 10.0) == [first]
    assert shell.slots.expire(99.0, 10.0) == [second]
    assert shell.slots.places == 0


def test_an_origin_with_nothing_left_is_forgotten() -> None:
    shell = Shell(per_origin=1, total=1)
    connection = shell.must_acquire(A)
    shell.acquire(B, name=1)
    shell.slots.forget(shell.waiters[1])

    assert list(shell.slots.sites) == [A]
    shell.discard(connection)
    assert not shell.slots.sites


def test_closing_hands_out_all_that_is_idle_and_all_who_wait() -> None:
    shell = Shell(per_origin=1, total=3)
    in_use, idle = shell.must_acquire(A), shell.must_acquire(B)
    shell.release(idle)
    shell.acquire(A, name=1)

    assert shell.slots.close() == ([idle], [shell.waiters[1]])
    shell.discard(in_use)
    assert (shell.slots.places, shell.slots.waiting, shell.slots.idle) == (0, 0, 0)


class AnyOrder(RuleBasedStateMachine):
    """Whatever the order of events, the books agree with a naive count, and nobody waits for what is there."""

    PER_ORIGIN, TOTAL = 2, 4

    def __init__(self) -> None:
        super().__init__()
        self.shell = Shell(self.PER_ORIGIN, self.TOTAL)
        self.in_use: list[Connection] = []
        self.queue: list[tuple[int, Origin]] = []
        self.now_s = 0.0
        self.names = 0

    def collect(self) -> None:
        """The woken leave the queue with a place; within an origin in order of arrival."""
        while self.shell.served:
            name, connection = self.shell.served.pop(0)
            origin = next(origin for queued, origin in self.queue if queued == name)
            assert name == next(queued for queued, other in self.queue if other == origin)
            self.queue.remove((name, origin))
            self.in_use.append(connection or Connection(self.shell.waiters[name].site))

    @rule(origin=st.sampled_from([A, B, C]))
    def acquire(self, origin: Origin) -> None:
        self.names += 1
        connection = self.shell.acquire(origin, self.names)
        if connection is None:
            self.queue.append((self.names, origin))
        else:
            assert connection not in self.in_use
            assert connection not in self.shell.closed
            assert connection.site.origin == origin
            self.in_use.append(connection)

    @precondition(lambda self: self.in_use)
    @rule(data=st.data(), reusable=st.booleans())
    def give_back(self, data: st.DataObject, reusable: bool) -> None:
        connection = self.in_use.pop(data.draw(st.integers(0, len(self.in_use) - 1)))
        if reusable:
            self.now_s += 1
            self.shell.release(connection, self.now_s)
        else:
            self.shell.discard(connection)
        self.collect()

    @precondition(lambda self: self.queue)
    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        name, _ = self.queue.pop(data.draw(st.integers(0, len(self.queue) - 1)))
        self.shell.slots.forget(self.shell.waiters[name])

    @rule(idle_s=st.integers(0, 5))
    def expire(self, idle_s: int) -> None:
        self.shell.closed += self.shell.slots.expire(self.now_s, idle_s)

    @invariant()
    def the_books_are_right(self) -> None:
        slots = self.shell.slots
        assert slots.places == len(self.in_use) + slots.idle <= self.TOTAL
        assert slots.waiting == len(self.queue)
        for origin, site in slots.sites.items():
            in_use = sum(connection.site.origin == origin for connection in self.in_use)
            assert site.places == in_use + len(site.idle) <= self.PER_ORIGIN
            assert site.places or site.waiters
            assert not (site.waiters and site.idle)
            if site.waiters and site.places < self.PER_ORIGIN:
                assert slots.places == self.TOTAL
                assert slots.idle == 0


TestAnyOrder = AnyOrder.TestCase


def test_an_opening_names_what_to_close_only_when_the_pool_is_full() -> None:
    assert Slots[Connection](1, 1, 1).take(A)[1] == Opening(None)
