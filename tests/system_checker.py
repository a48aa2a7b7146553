"""What must hold, whoever is at fault: a checker that knows nothing of the decisions it judges.

It sees what producers were told, the providers' ledger, the rows with their timelines and dead letters, the lists in Redis and
what was announced; from inside a process it reads the counts of what is held, once everything is over. Each broken rule is a line
that begins with the invariant's number:

=== ==================================================================================================================
I1  what was accepted ends, and within :data:`HEALED_WITHIN_S` of the last fault; what is called delivered was sent
I2  where the provider honours keys, a notification has one effect at most
I3  elsewhere it has one, and one more for each time it was marked as possibly sent; what was marked is sent again only as far
    as its channel's policy allows, and through no other configuration unless that one allows it
I4  nobody sends or writes under a lease that is over, and nobody takes work from a lease that is not
I5  a row changes only as the table of transitions says; the end is the end, and it is announced
I6  a channel sends no more in any window than its rate, its burst and its quota allow, all processes together
I8  attempts and delays keep within their bounds, a provider's hint is respected, nothing is sent after its time
I9  once all is over nothing is held
I10 after failures enough in a row a channel rests
I12 who is told to leave does so in time and leaves nothing behind
I13 whatever is not at its end can be found: no step loses an id
=== ==================================================================================================================
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson
import trio

from actors.memory_store import RESCUE_SLACK_S
from actors.memory_tables import Row
from actors.ports import Settlement
from actors.supervision import is_outage
from dispatcher.backoff import RESCUE_LATER_S
from dispatcher.messages import Claimed
from dispatcher.model import NotificationId, OrganizationId, Status
from system_doubts import Doubts
from system_limits import COSTLY, PREFETCH, LimitsJudge
from system_network import HONOURS_KEYS, Call

if TYPE_CHECKING:
    from system_process import Process
    from system_world import World

HEALED_WITHIN_S = 900.0
"""A clock set back by five minutes, then an organization's quarantine of five, then leases, sweeps, retries, a slow channel."""
MENDED_WITHIN_S = 330.0
"""A crashed actor is mended within seconds, or after its quarantine."""
READ_ONLY = frozenset(
    {
        "known",
        "queued",
        "next_in_s",
        "due",
        "digests",
        "load_providers",
        "stored_answer",
        "register",
        "renew_lease",
        "release_lease",
        "hold_shards",
        "release_shards",
    }
)
FINAL = (Status.DELIVERED, Status.FAILED, Status.CANCELED)
BEGINNINGS = (Status.QUEUED, Status.SCHEDULED)
TRANSITIONS = {
    (Status.SCHEDULED, Status.QUEUED),
    (Status.SCHEDULED, Status.CANCELED),
    (Status.QUEUED, Status.CANCELED),
    (Status.QUEUED, Status.SENDING),
    (Status.QUEUED, Status.FAILED),
    (Status.SENDING, Status.QUEUED),
    (Status.SENDING, Status.DELIVERED),
    (Status.SENDING, Status.FAILED),
    (Status.FAILED, Status.QUEUED),
}


class Seen(NamedTuple):
    """A row as it was last seen."""

    status: Status
    attempts: int
    attempts_max: int
    unknowns: int
    rescues: int
    claimed_by: str | None

    @classmethod
    def of(cls, row: Row) -> Seen:
        return cls(row.status, row.attempts, row.attempts_max, row.unknowns, row.rescues, row.claimed_by)


class Ended(NamedTuple):
    """Who recorded a row's end, and when."""

    process: Process
    at_s: float


class Checker:
    """Collects broken rules in ``broken``."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.broken: list[str] = []
        self._rows: dict[NotificationId, Seen] = {}
        self._ended: dict[NotificationId, Ended] = {}
        self._rescues: Counter[NotificationId] = Counter()
        self._requeues: Counter[NotificationId] = Counter()
        self.limits = LimitsJudge(world, self.break_)
        self._doubts = Doubts()
        self._crashes: list[tuple[float, Process]] = []
        self._forgot_s = -inf
        self._left: dict[str, float] = {}

    def break_(self, invariant: str, what: str) -> None:
        """A rule is broken."""
        line = f"{invariant}: {what} (at {trio.current_time():.3f} s)"
        self._world.note("BROKEN", line)
        self.broken.append(line)

    # --- what happened to the world ---------------------------------------------------------------------------------------

    def actor_crashed(self, process: Process) -> None:
        """Some organization's actor in this process is about to fail."""
        self._crashes.append((trio.current_time(), process))

    def redis_forgot(self) -> None:
        """Redis lost some or all it knew."""
        self._forgot_s = trio.current_time()
        self.limits.redis_misleads()

    def ended_by_itself(self, process: Process, error: Exception) -> None:
        """A process failed; nothing but a server that was away at its start excuses that."""
        if process.up.is_set() or not is_outage(error):
            self.break_("I1", f"{process.name} ended by itself: {error!r}")

    def left(self, process: Process, took_s: float, well: bool) -> None:
        """A process has left in good order."""
        if took_s > process.grace_s + 0.1 and not process.last_stop_s + took_s > trio.current_time():
            self.break_("I12", f"{process.name} took {took_s:.1f} s to leave")
        mending = any(crashing is process and at_s > trio.current_time() - MENDED_WITHIN_S for at_s, crashing in self._crashes)
        if well and not mending:  # what a crashed actor held is rescued as soon as the lease is given up
            held = [row.id for row in self._world.database.rows.values() if row.claimed_by == process.incarnation]
            if held:
                self.break_("I12", f"{process.name} left and still holds {held}")

    # --- every change of a row ----------------------------------------------------------------------------------------------

    def looks_at_rows(self, operation: str, process: Process) -> None:
        """An operation on Postgres has just acted for a process."""
        if operation in READ_ONLY:
            return
        rows, seen = self._world.database.rows, self._rows
        for id, row in rows.items():
            before, after = seen.get(id), Seen.of(row)
            if before != after:
                seen[id] = after
                if before is not None:
                    self._changed(operation, process, row, before, after)
                elif after not in [Seen(status, 0, after.attempts_max, 0, 0, None) for status in BEGINNINGS]:
                    self.break_("I5", f"{id} began as {after}")

    def _changed(self, operation: str, process: Process, row: Row, before: Seen, after: Seen) -> None:
        step = f"{row.id} {before.status.value} → {after.status.value} by {operation} of {process.name}"
        self._world.note(step, after.attempts, after.unknowns)
        if (before.status, after.status) not in TRANSITIONS:
            self.break_("I5", step)
        if after.attempts > after.attempts_max:
            self.break_("I8", f"{step}: attempt {after.attempts} of {after.attempts_max}")
        if after.status is Status.SENDING:
            lease_s = self._world.database.leases.get(process.incarnation, -inf)
            if lease_s < self._world.database.unix_s():
                self.break_("I4", f"{step} without a lease")
            if after.attempts != before.attempts + 1 or after.claimed_by != process.incarnation:
                self.break_("I5", f"{step}: attempt {before.attempts} became {after.attempts}")
        self._doubts.changed(row, after.unknowns, by_hand=operation == "requeue")
        self._ended.pop(row.id, None)
        if after.status in FINAL and operation == "record":  # what the janitor gives up is told if Redis is there, else not
            self._ended[row.id] = Ended(process, trio.current_time())
        if after.status is Status.DELIVERED and not self._world.network.accepts.get(row.id):
            self.break_("I1", f"{step}, and no provider ever took it")
        if after.status is Status.FAILED and row.id not in self._world.database.dead_letters:
            self.break_("I1", f"{step} without a dead letter")
        if (before.status, after.status) == (Status.SCHEDULED, Status.QUEUED) and not self._is_due(row):
            self.break_("I5", f"{step}, before its time")
        if after.status is Status.CANCELED and operation != "cancel" and row.reason != "expired":
            self.break_("I5", f"{step}, by nobody's hand")
        if before.status is Status.FAILED:
            self._requeues[row.id] += 1
            if operation != "requeue":
                self.break_("I5", f"{step}, by nobody's hand")
        elif after.rescues > before.rescues:
            self._rescued(operation, process, row, before, step)
        elif before.status is Status.SENDING:
            if before.claimed_by != process.incarnation:
                self.break_("I4", f"{step}, held by {before.claimed_by}")
            refunded = before.attempts - after.attempts
            if refunded not in (0, 1) or (row.reason == "interrupted" and after.status is Status.QUEUED and not refunded):
                self.break_("I12", f"{step}: {refunded} attempts given back for {row.reason}")

    def _is_due(self, row: Row) -> bool:
        return row.next_retry_at_s is not None and row.next_retry_at_s <= self._world.database.unix_s()

    def _rescued(self, operation: str, process: Process, row: Row, before: Seen, step: str) -> None:
        self._rescues[row.id] += 1
        if operation == "disown":
            legal = before.claimed_by == process.incarnation
        else:
            until_s = self._world.database.leases.get(before.claimed_by or "", -inf)
            legal = until_s <= self._world.database.unix_s() - RESCUE_SLACK_S
        if not legal:
            self.break_("I4", f"{step}: taken from {before.claimed_by}, whose lease holds")

    # --- every call -----------------------------------------------------------------------------------------------------------

    def call_began(self, call: Call) -> None:
        """A call has left its process."""
        world, row = self._world, self._world.database.rows[call.id]
        world.note(call.process.name, "calls", call.id, call.attempt, call.reply.value)
        intended = (row.status, row.claimed_by, row.attempts) == (Status.SENDING, call.process.incarnation, call.attempt)
        lease_s = world.config.dispatch.lease_s
        lapsed = call.began_s < world.clock.jumped_s.get("postgres", -inf) + lease_s
        if not (intended or call.late or lapsed):
            self.break_("I4", f"{call.process.name} called for {row.id} without an intent on record")
        patience_s = PREFETCH * world.config.dispatch.request_deadline_s
        set_back = call.began_s < world.clock.jumped_s.get("postgres", -inf) + HEALED_WITHIN_S
        late_s, denied = HEALED_WITHIN_S if set_back else patience_s, (call.id, call.attempt) in world.network.denied
        objection = self._doubts.objection(call.id, self.limits.policy_of(call), late_s, denied=denied)
        if intended and objection is not None:
            self.break_("I3", f"{call.process.name} called for {call.id} {objection}")
        if intended and row.provider_config_id != call.config_id:
            self.break_("I4", f"{call.process.name} called {call.config_id} for {row.id}, recorded is {row.provider_config_id}")
        strayed = self._doubts.strayed(call.id, call.config_id)
        if intended and strayed is not None and not self.limits.may_go_elsewhere(call.organization_id, strayed):
            self.break_("I3", f"{call.process.name} called {call.config_id} for {call.id}, which {strayed} may have sent")
        jumped = call.began_s < world.clock.jumped_s.get(call.process.name, -inf) + lease_s
        if row.expires_at_s is not None and not (jumped or call.late) and call.began_unix_s > row.expires_at_s + patience_s:
            self.break_("I8", f"{row.id} was sent {call.began_unix_s - row.expires_at_s:.0f} s after its time")

    # --- every step of the queue ------------------------------------------------------------------------------------------------

    def looks_at_queue(self, operation: str, args: tuple[Any, ...]) -> dict[OrganizationId, set[NotificationId]]:
        """An operation on Redis is about to act: which ids are there now, for the organizations it is about."""
        if operation in ("claim", "unpark", "retire", "restore"):
            return {args[0]: self._present(args[0])}
        if operation == "settle":
            return {settlement.organization_id: self._present(settlement.organization_id) for settlement in args[0]}
        return {}

    def queue_acted(
        self,
        process: Process,
        operation: str,
        args: tuple[Any, ...],
        answer: object,
        before: dict[OrganizationId, set[NotificationId]],
    ) -> None:
        """It has acted."""
        done: set[NotificationId] = set()
        if operation == "settle":
            settlements: Sequence[Settlement] = args[0]
            for settlement in settlements:
                done.update(settlement.done)
                self._settled(process, settlement)
        for organization_id, ids in before.items():
            lost = ids - self._present(organization_id) - done
            if lost:
                self.break_("I13", f"{operation} of {process.name} lost {sorted(lost)}")
        if isinstance(answer, Claimed):
            self._world.note(process.name, "claimed", *answer.ids)
            in_flight = set(self._world.queue.holds(args[0])["inflight"])
            if not in_flight.issuperset(answer.ids):
                self.break_("I13", f"{process.name} claimed {sorted(set(answer.ids) - in_flight)}, which nobody could find again")

    def _settled(self, process: Process, settlement: Settlement) -> None:
        for id in settlement.done:
            row = self._world.database.rows[id]
            if row.status is Status.SENDING and row.claimed_by == process.incarnation:
                self.break_("I13", f"{process.name} settled {id} before its outcome was on record")

    def _present(self, organization_id: OrganizationId) -> set[NotificationId]:
        return {id for ids in self._world.queue.holds(organization_id).values() for id in ids}

    # --- the end --------------------------------------------------------------------------------------------------------

    def unfinished(self) -> list[NotificationId]:
        """What has not ended, or is still in some list."""
        world = self._world
        open_ = {row.id for row in world.database.rows.values() if row.status not in FINAL}
        listed = {id for organization_id in world.policies for id in self._present(organization_id)}
        return sorted(open_ | listed)

    def held(self) -> list[str]:
        """What the processes still hold, those that are leaving included."""
        found = []
        for process in (each for each in self._world.processes if each.up.is_set() and not each.dead):
            node = process.node
            ledger, permits, callers = node.ledger.statistics(), node.permits.statistics(), node.callers.statistics()
            counts = {
                "permits": permits.held + permits.waiting,
                "calls": callers.calling + callers.in_line,
                "ledger": sum(stage.pending + stage.flushing for stage in (ledger.gate, ledger.record, ledger.settle)),
                "accepting": node.acceptor.statistics().pending,
                "in flight": sum(len(actor.core.in_flight) for actor in node.organizations.alive()),
            }
            found += [f"{process.name} holds {count} {name}" for name, count in counts.items() if count]
        return found

    def finish(self) -> list[str]:
        """Judge everything that can only be judged at the end. Returns all broken rules."""
        for id in self.unfinished():
            row = self._world.database.rows.get(id)
            where = [name for name, ids in self._lists_of(row).items() if id in ids]
            self.break_("I1", f"{id} is {'unknown' if row is None else row.status.value}, in {where or 'no list'}")
        for what in self.held():
            self.break_("I9", what)
        for id in self._world.accepted:
            if id not in self._world.database.rows:
                self.break_("I1", f"{id} was accepted and is in no table")
        for row in self._world.database.rows.values():
            self._effects(row)
            self._announced(row)
            self._attempts(row)
        self._delays()
        self.limits.finish()
        return self.broken

    def _lists_of(self, row: Row | None) -> dict[str, list[NotificationId]]:
        return {} if row is None else self._world.queue.holds(row.organization_id)

    def _effects(self, row: Row) -> None:
        effects = self._world.network.effects.get(row.id, 0)
        configured = self._world.policies[row.organization_id]
        if HONOURS_KEYS[row.channel] and not any(policy.failover_on_unknown for policy in configured):
            if effects > 1:
                self.break_("I2", f"{row.id} had {effects} effects under one key")
        elif effects > 1 + row.unknowns:
            self.break_("I3", f"{row.id} had {effects} effects and {row.unknowns} marks")
        elif row.status is Status.DELIVERED and effects == 0:
            self.break_("I1", f"{row.id} is delivered and reached nobody")

    def _announced(self, row: Row) -> None:
        ended = self._ended.get(row.id)
        if ended is None or row.status not in FINAL or ended.at_s <= self._forgot_s:
            return
        gone_s = inf if ended.process.ended_s is None or ended.process.left_well else ended.process.ended_s
        if gone_s < trio.current_time() and gone_s < ended.at_s + 60.0:
            return
        kind = f"notification.{row.status.value}"
        told = (orjson.loads(notice) for notice in self._world.queue.announced(row.organization_id))
        if not any(notice.get("id") == row.id and notice["type"] == kind for notice in told):
            self.break_("I5", f"{row.id} is {row.status.value} and nobody was told")

    def _attempts(self, row: Row) -> None:
        costly = sum(call.id == row.id and call.outcome in COSTLY for call in self._world.network.calls)
        most = self._world.config.dispatch.attempts_max * (1 + self._requeues[row.id]) + self._rescues[row.id]
        if costly > most:
            self.break_("I8", f"{row.id} was tried {costly} times, of {most}")

    def _delays(self) -> None:
        d = self._world.config.dispatch
        hints: dict[tuple[NotificationId, int], float] = {}
        for call in self._world.network.calls:
            if call.outcome == "rate_limited":
                hint_s = float(call.hint) if call.hint is not None and call.hint.isdigit() else 0.0
                key = (call.id, call.attempt)
                hints[key] = min(hint_s, hints.get(key, inf))
        for entry in self._world.database.timeline:
            if entry.next_retry_at_s is None:
                continue
            delay_s = entry.next_retry_at_s - entry.at_s
            most_s = RESCUE_LATER_S if entry.code == "process_lost" else max(d.retry_cap_s, d.retry_hint_cap_s)
            if not 0.0 <= delay_s <= most_s + 1e-3:
                self.break_("I8", f"{entry.notification_id} waits for {delay_s:.1f} s")
            hint_s = hints.get((entry.notification_id, entry.attempt), 0.0) if entry.code == "http_429" else 0.0
            if delay_s < min(hint_s, d.retry_hint_cap_s) - 1e-3:
                self.break_("I8", f"{entry.notification_id} waits for {delay_s:.1f} s after it was asked for {hint_s:.1f} s")
