"""Any interleaving of accepting, delivering, crashing and healing ends well; and the machine that says so has teeth."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress

import pytest
from attrs import evolve
from hypothesis import HealthCheck, Phase, Verbosity, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule, run_state_machine_as_test

from actors.memory_store import MemoryStore
from actors.memory_tables import Row
from actors.ports import Admission, BatchAnswer, EventAdmission, Inserted, Page, Rescued
from beside import Result, beside
from delivery_provider import Reply
from delivery_world import ATTEMPTS_MAX, LEASE_S, POLICIES, Actor, Call, Fault, Process, World
from dispatcher.errors import StoreUnavailable
from dispatcher.messages import Concluded, ProviderPolicy, Verdict
from dispatcher.model import Channel, DeadLetterReason, Delivery, NotificationId, OrganizationId, Status
from dispatcher.outcome import OnUnknown, Outcome, OutcomeClass

ORGANIZATIONS = [OrganizationId("acme"), OrganizationId("other")]
PROCESSES_MAX = 2
ROUNDS_MAX = 400
FINAL = (Status.DELIVERED, Status.FAILED)
DELIVERED = Outcome(OutcomeClass.DELIVERED, "accepted")

REPLIES = [Reply.OK, Reply.ACCEPTED_IN_SILENCE, *Reply]

any_index = st.integers(0, 1000)
any_channel = st.sampled_from(Channel)
any_fault = st.sampled_from([Fault.NONE, Fault.NONE, Fault.NONE, Fault.AWAY, Fault.LOST])


class DeliveryMachine(RuleBasedStateMachine):
    """Drives a world through any history, then heals it and looks at what has become of every notification."""

    habits: type[Process] = Process

    @initialize(seed=st.integers(0, 2**32 - 1))
    def begin(self, seed: int) -> None:
        self.world = World(seed, self.habits)
        self.world.start_process()
        process = self.world.start_process()
        for channel in (*Channel, *Channel):
            process.accept(ORGANIZATIONS[0], channel, None, b"first", None)
        self.seen: dict[NotificationId, Status] = {}
        self.announcements_seen = 0

    def process(self, index: int) -> Process | None:
        awake = [process for process in self.world.processes if not process.frozen]
        return awake[index % len(awake)] if awake else None

    def actor(self, index: int) -> Actor | None:
        process = self.process(index)
        actors = list(process.actors.values()) if process else []
        return actors[index % len(actors)] if actors else None

    def strike(self, fault: Fault, after: int = 0) -> None:
        self.world.fault, self.world.fault_in = fault, after

    # --- what producers do ----------------------------------------------------------------------------------------------

    @rule(
        index=any_index,
        organization=st.sampled_from(ORGANIZATIONS),
        channel=any_channel,
        life_s=st.sampled_from([None, None, None, 100.0]),
        fault=any_fault,
        fault_in=st.integers(0, 1),
    )
    def accept(
        self, index: int, organization: OrganizationId, channel: Channel, life_s: float | None, fault: Fault, fault_in: int
    ) -> None:
        if process := self.process(index):
            self.strike(fault, fault_in)
            process.accept(organization, channel, None, b"once", life_s)

    @rule(index=any_index, key=st.sampled_from("abc"), content=st.sampled_from([b"one", b"two"]), fault=any_fault)
    def accept_with_a_key(self, index: int, key: str, content: bytes, fault: Fault) -> None:
        if process := self.process(index):
            self.strike(fault)
            process.accept(ORGANIZATIONS[0], Channel.SMS, key, content, None)

    # --- what processes do ----------------------------------------------------------------------------------------------

    @rule(index=any_index, which=any_index, fault=any_fault)
    def take_a_step(self, index: int, which: int, fault: Fault) -> None:
        process = self.process(index)
        if process and process.steps:
            self.strike(fault)
            process.take(process.steps[which % len(process.steps)])

    @rule(index=any_index, choices=st.lists(any_index, min_size=5, max_size=20))
    def work(self, index: int, choices: list[int]) -> None:
        """Many steps without a fault, in any order; with calls that end in any way."""
        self.work_through(index, choices)

    @rule(index=any_index, choices=st.lists(any_index, min_size=10, max_size=20))
    def work_longer(self, index: int, choices: list[int]) -> None:
        """The same, so that histories are made of work more than of trouble."""
        self.work_through(index, choices)

    def work_through(self, index: int, choices: list[int]) -> None:
        process = self.process(index)
        for choice in choices if process else ():
            if process and process.steps:
                process.take(process.steps[choice % len(process.steps)])
            elif process and process.calls:
                process.make(process.calls[choice % len(process.calls)], REPLIES[choice % len(REPLIES)])

    @rule(index=any_index, which=any_index, reply=st.sampled_from(Reply))
    def make_a_call(self, index: int, which: int, reply: Reply) -> None:
        process = self.process(index)
        if process and process.calls:
            process.make(process.calls[which % len(process.calls)], reply)

    @rule(index=any_index)
    def sweep(self, index: int) -> None:
        if process := self.process(index):
            process.sweep()

    @rule(index=any_index, fault=any_fault, fault_in=st.integers(0, 4))
    def mend(self, index: int, fault: Fault, fault_in: int) -> None:
        if process := self.process(index):
            self.strike(fault, fault_in)
            process.mend()

    @rule(index=any_index, fault=any_fault)
    def expire(self, index: int, fault: Fault) -> None:
        """What nobody could send in time is given up, and whoever did it may die before anybody hears of it."""
        if process := self.process(index):
            self.strike(fault)
            with suppress(StoreUnavailable):
                self.world.run(process.store.expire(10))

    @rule(index=any_index, fault=any_fault)
    def fall_asleep(self, index: int, fault: Fault) -> None:
        if actor := self.actor(index):
            self.strike(fault)
            actor.process.try_to_sleep(actor)

    # --- what happens to them -------------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.01, 0.5, 2.0, 6.0, 25.0, 65.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.advance(seconds)

    @precondition(lambda self: len(self.world.processes) < PROCESSES_MAX)
    @rule()
    def start(self) -> None:
        self.world.start_process()

    @rule(index=any_index)
    def crash(self, index: int) -> None:
        """Usually somebody starts it again; with one process only, always."""
        self.world.processes[index % len(self.world.processes)].crash()
        if not self.world.processes or index % 3:
            self.world.start_process()

    @rule(index=any_index)
    def crash_an_actor(self, index: int) -> None:
        if actor := self.actor(index):
            actor.process.crash_actor(actor)

    @precondition(lambda self: len(self.world.processes) == PROCESSES_MAX)
    @rule(index=any_index, choices=st.lists(any_index, min_size=5, max_size=20))
    def stand_still(self, index: int, choices: list[int]) -> None:
        """One process stands still, does not know it, and loses its lease; the other one takes over and works."""
        for number, process in enumerate(self.world.processes):
            process.frozen = number == index % PROCESSES_MAX
        self.world.advance(LEASE_S + 2.0)
        self.mend(0, Fault.NONE, 0)
        self.work_through(0, choices)

    @precondition(lambda self: any(process.frozen for process in self.world.processes))
    @rule(choices=st.lists(any_index, min_size=1, max_size=20))
    def go_on(self, choices: list[int]) -> None:
        """It wakes up where it was, before anything else happens to it."""
        for process in self.world.processes:
            if process.frozen:
                process.frozen = False
                self.work_through(self.world.processes.index(process), choices)

    @precondition(lambda self: len(self.world.processes) == PROCESSES_MAX)
    @rule(index=any_index)
    def drain(self, index: int) -> None:
        if process := self.process(index):
            process.drain()

    @precondition(lambda self: any(process.is_drained for process in self.world.processes))
    @rule()
    def leave(self) -> None:
        for process in [process for process in self.world.processes if process.is_drained]:
            process.leave()
        if not self.world.processes:
            self.world.start_process()

    @rule(index=any_index, choices=st.lists(any_index, min_size=5, max_size=20))
    def postgres_is_away_for_longer_than_a_lease(self, index: int, choices: list[int]) -> None:
        """Whoever works goes on as far as that goes; when it is back, everybody has lost their lease."""
        self.world.postgres_is_away = True
        self.work_through(index, choices[::2])
        self.world.advance(LEASE_S + 2.0)
        self.work_through(index, choices[1::2])
        self.world.postgres_is_away = False

    @rule()
    def redis_loses_its_memory(self) -> None:
        self.world.queue.lose_memory()

    @rule(channel=any_channel, exists=st.booleans())
    def change_the_configuration(self, channel: Channel, exists: bool) -> None:
        self.configure(channel, exists=exists)

    def configure(self, channel: Channel, *, exists: bool) -> None:
        world = self.world
        policy = world.policies.pop(channel, None) or POLICIES[channel]
        if exists:
            world.policies[channel] = evolve(policy, revision=policy.revision + 1)
        for process in world.processes:
            process.reload()

    # --- what must hold at any moment -------------------------------------------------------------------------------------

    @invariant()
    def it_is_sound(self) -> None:
        self.world.fault = Fault.NONE
        self.a_final_status_is_final()
        self.attempts_stay_within_their_limit()
        self.dead_letters_are_what_failed_and_nothing_else()
        self.what_was_called_accepted_is_stored()
        self.an_end_is_announced_only_after_it_is_on_record()
        self.organizations_hold_no_more_than_they_may()

    def a_final_status_is_final(self) -> None:
        for row in self.world.database.rows.values():
            before = self.seen.get(row.id)
            assert before not in FINAL or row.status is before, "what was final has changed"
            self.seen[row.id] = row.status

    def attempts_stay_within_their_limit(self) -> None:
        for row in self.world.database.rows.values():
            assert 0 <= row.attempts <= row.attempts_max == ATTEMPTS_MAX + row.rescues, "tried too often"

    def dead_letters_are_what_failed_and_nothing_else(self) -> None:
        rows = self.world.database.rows.values()
        failed = {row.id for row in rows if row.status is Status.FAILED}
        assert failed == set(self.world.database.dead_letters), "dead letters are not what failed"

    def what_was_called_accepted_is_stored(self) -> None:
        assert self.world.accepted.keys() <= self.world.database.rows.keys(), "accepted and not stored"

    def an_end_is_announced_only_after_it_is_on_record(self) -> None:
        for notice in self.world.announced[self.announcements_seen :]:
            if notice["status"] in FINAL:
                assert self.world.database.rows[notice["id"]].status == notice["status"], "announced before it was on record"
        self.announcements_seen = len(self.world.announced)

    def organizations_hold_no_more_than_they_may(self) -> None:
        for process in self.world.processes:
            for actor in process.actors.values():
                assert len(actor.core.in_flight) <= actor.core.in_flight_max, "too many in flight"

    # --- the end ----------------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        failing = sys.exc_info()[0] is not None  # then what failed is to be seen, not that it can not be healed
        if hasattr(self, "world") and not failing:
            self.heal()
            self.judge()

    def heal(self) -> None:
        """Everything works again: everybody is awake, configured, and asked often enough."""
        world = self.world
        world.fault = Fault.NONE
        for process in list(world.processes):
            process.frozen = False
            if process.draining:
                process.crash()
        if not world.processes:
            world.start_process()
        for channel in Channel:
            if channel not in world.policies:
                self.configure(channel, exists=True)
        for number in range(ROUNDS_MAX):
            self.work_off()
            if self.is_quiet():
                return
            world.advance(10.0)
            for process in world.processes:
                process.mend()
                process.sweep()
                if number % 60 == 59:  # as actors do every 5 to 15 minutes
                    process.reload()
        raise AssertionError("it never came to rest")

    def work_off(self) -> None:
        for _ in range(10_000):
            busy = [process for process in self.world.processes if process.steps or process.calls]
            if not busy:
                return
            for process in busy:
                if process.steps:
                    process.take(process.steps[0])
                elif process.calls:
                    process.make(process.calls[0], Reply.OK)
        raise AssertionError("it never stopped working")

    def is_quiet(self) -> bool:
        all_final = all(row.status in FINAL for row in self.world.database.rows.values())
        empty = not any(any(self.world.queue.holds(name).values()) for name in ORGANIZATIONS)
        actors = [actor for process in self.world.processes for actor in process.actors.values()]
        return all_final and empty and all(actor.core.is_idle and not actor.held for actor in actors)

    def judge(self) -> None:
        world = self.world
        self.it_is_sound()
        for row in world.database.rows.values():
            self.judge_row(row)

    def judge_row(self, row: Row) -> None:
        provider = self.world.providers[row.channel]
        keys = [key for key in provider.accepted if key.startswith(row.id)]
        accepted = sum(provider.accepted[key] for key in keys)
        effects = sum(provider.effects[key] for key in keys)
        if row.status is Status.DELIVERED:
            assert effects >= 1, "delivered, and nobody got it"
        else:
            letter = self.world.database.dead_letters[row.id]
            if row.reason == "http_400":
                assert letter.reason is DeadLetterReason.HARD, "a hard failure with another reason"
            if letter.reason is DeadLetterReason.UNKNOWN:
                assert row.unknowns >= 1, "held for nothing"
        assert accepted <= 1 + row.unknowns, "a double that nobody marked"
        match POLICIES[row.channel].on_unknown:
            case OnUnknown.RESEND:
                assert effects <= 1, "a double at a provider that honours keys"
            case OnUnknown.RESEND_ONCE:
                assert accepted <= 2, "sent again more than once"
            case OnUnknown.HOLD:
                assert accepted <= 1, "sent again although it was to be held"
            case OnUnknown.ASK:
                assert accepted <= 1, "sent again although the provider had it"


@contextmanager
def quiet() -> Iterator[None]:
    """The janitor warns of what it mends, which here is all the time."""
    logger = logging.getLogger("actors")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(before)


def run_any_histories() -> None:
    """Raises AssertionError for a history that does not end well."""
    with quiet():
        run_state_machine_as_test(
            DeliveryMachine,
            settings=settings(
                max_examples=400,
                stateful_step_count=60,
                deadline=None,
                print_blob=True,
                suppress_health_check=list(HealthCheck),
            ),
        )


@beside(run_any_histories)
def test_any_history_ends_with_every_notification_in_one_final_state(result: Result) -> None:
    result()


# --- the machine has teeth ------------------------------------------------------------------------------------------------


class OpenGate(MemoryStore):
    def _gate(self, ids, *ways, again):  # type: ignore[no-untyped-def]
        for id in ids:
            row = self.database.rows[id]
            if row.status is Status.SENDING:
                row.status = Status.QUEUED
        return super()._gate(ids, *ways, again=again)


class GateForTheDead(MemoryStore):
    def _gate(self, ids, *ways, again):  # type: ignore[no-untyped-def]
        for id in ids:
            row = self.database.rows[id]
            if row.status in FINAL:
                row.status, row.attempts = Status.QUEUED, 0
        return super()._gate(ids, *ways, again=again)


class UncheckedRecord(MemoryStore):
    def _may_record(self, row: Row, verdict: Verdict) -> bool:
        return True


class RecordOfAnyAttempt(MemoryStore):
    def _may_record(self, row: Row, verdict: Verdict) -> bool:
        return row.status is Status.SENDING


class EagerRescue(MemoryStore):
    async def rescue(self, limit: int) -> Sequence[Rescued]:
        """Everything that is being sent is taken for lost."""
        return self._take_back(list(self._sending()))


class UnmarkedRescue(MemoryStore):
    def _take_back(self, rows: Iterable[Row]) -> list[Rescued]:
        rows = list(rows)
        rescued = super()._take_back(rows)
        for row in rows:
            row.unknowns -= 1
        return rescued


class ForgetsWhatIsUnknown(MemoryStore):
    def _claim(self, row: Row, now_s: float, term: int) -> Delivery:
        """Every attempt looks like the first."""
        return evolve(super()._claim(row, now_s, term), unknown_for_s=None)


class NoRescue(MemoryStore):
    async def rescue(self, limit: int) -> Sequence[Rescued]:
        return []


class OneTermForEver(MemoryStore):
    async def register(self, lease_s: float) -> None:
        """Forgets that the lease had lapsed."""
        await super().register(lease_s)
        self.term = 0


class NoWalk(MemoryStore):
    async def queued(self, after: object, older_than_s: float, limit: int) -> Page:
        return Page([], None)


class BlindInsert(MemoryStore):
    async def insert(
        self, admissions: Sequence[Admission], batch_answers: Sequence[BatchAnswer], events: Sequence[EventAdmission] = ()
    ) -> Inserted:
        """Says accepted and hopes for the best."""
        with suppress(StoreUnavailable):
            return await super().insert(admissions, batch_answers, events)
        return Inserted()


def broken_store(broken: type[MemoryStore]) -> type[Process]:
    return type(f"ProcessWith{broken.__name__}", (Process,), {"store_class": broken})


class AnnouncesBeforeItRecords(Process):
    def record(self, actor: Actor, verdict: Verdict, *, again: bool) -> None:
        self.will_settle(actor, verdict, is_ours=True)
        self.will("record", lambda: self.really_record(verdict))

    def really_record(self, verdict: Verdict) -> None:
        with suppress(StoreUnavailable):
            self.world.run(self.store.record([verdict], again=True))


class RecordsBeforeItCalls(Process):
    def make(self, call: Call, reply: Reply) -> None:
        """At most once, and sometimes not at all."""
        with suppress(StoreUnavailable):
            self.world.run(self.store.record([Verdict(call.delivery, DELIVERED, call.via, Status.DELIVERED)], again=False))
        self.will("call", lambda: self.really_make(call, reply))
        self.calls.remove(call)

    def really_make(self, call: Call, reply: Reply) -> None:
        self.exchange(call.delivery, call.via, reply)
        call.actor.tell(Concluded(call.delivery, DELIVERED, call.via, 0.1))


class CallsWithoutALease(Process):
    @property
    def may_call(self) -> bool:
        return True


class NewKeyForEachAttempt(Process):
    def key(self, delivery: Delivery) -> str:
        return f"{delivery.id}/{delivery.attempt}"


class TakesSilenceForFailure(Process):
    def record(self, actor: Actor, verdict: Verdict, *, again: bool) -> None:
        super().record(actor, evolve(verdict, possible_double=False), again=again)


class AsksNobody(Process):
    def exchange(self, delivery: Delivery, via: ProviderPolicy, reply: Reply) -> Outcome:
        return super().exchange(evolve(delivery, unknown_for_s=None), via, reply)


class DoesNotMendActors(Process):
    def mend_actor(self, organization_id: OrganizationId) -> None:
        pass


_BROKEN = [
    *map(
        broken_store,
        (
            OpenGate,
            GateForTheDead,
            UncheckedRecord,
            RecordOfAnyAttempt,
            EagerRescue,
            UnmarkedRescue,
            ForgetsWhatIsUnknown,
            NoRescue,
            OneTermForEver,
            NoWalk,
            BlindInsert,
        ),
    ),
    AnnouncesBeforeItRecords,
    RecordsBeforeItCalls,
    CallsWithoutALease,
    NewKeyForEachAttempt,
    TakesSilenceForFailure,
    AsksNobody,
    DoesNotMendActors,
]
BROKEN = {habits.__name__: habits for habits in _BROKEN}


BROKEN_PROMISE = (
    "without an intent|what was final|tried too often|dead letters are not|accepted and not|announced before|nobody got it"
    "|honours keys|nobody marked|never came to rest|sent again|held for nothing"
)


def run_broken_histories(name: str) -> None:
    """Raises AssertionError for the first that does not end well."""
    habits = BROKEN[name]
    machine = type(f"MachineOf{habits.__name__}", (DeliveryMachine,), {"habits": habits})
    with quiet():
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=2000,
                stateful_step_count=60,
                derandomize=True,
                database=None,
                phases=[Phase.generate],
                report_multiple_bugs=False,
                deadline=None,
                print_blob=False,
                verbosity=Verbosity.quiet,
                suppress_health_check=list(HealthCheck),
            ),
        )


@beside(run_broken_histories)
@pytest.mark.parametrize("name", BROKEN)
def test_the_machine_catches_what_is_broken(name: str, result: Result) -> None:
    """Within a bounded number of histories, the same ones every time."""
    with pytest.raises(AssertionError, match=BROKEN_PROMISE):
        result()
