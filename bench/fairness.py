"""What does an organization wait while others are busy: ``python -m bench fairness``.

A quiet organization sends a steady trickle through the real surface to a sandbox that takes its time. Measured is the time from
being accepted to the answer being recorded, by the rows themselves: first alone, then beside others that have much queued, or
whose provider does not answer. Each turn has a process of its own, so that nothing of one hangs over into the next.

The machine's CPU belongs to nobody's turn: where the others take all of it, everything is late, whoever is next. So one busy
organization is measured with calls that take as long as calls do, which leaves CPU over; and once, for comparison, sixteen that
together ask for more than the machine has.
"""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Sequence
from statistics import median

import click
import httpx
import orjson
from attrs import field, frozen

from actors.store import api_keys
from bench.rig import SHARDS, TEXT, Load, Servers, accounts, contestant, servers, spread
from dispatcher.keys import shard_of
from dispatcher.model import OrganizationId

BUSY = 16
"""Sixteen organizations at 32 calls each take all 512 callers."""
SILENT_ROWS = 100
"""Enough for each of them to keep its channel full."""
WARM_UP = 20
DEADLINE_S = 60.0
SENTINEL = "notifications:sentinel"


@frozen
class Variant:
    """What the others do: ``busy`` organizations have ``queued`` between them, to recipients of this form."""

    name: str
    busy: int = 0
    queued: int = 0
    recipient: str = "reader@example.org"
    keyed: bool = False


@frozen
class Wait:
    """The waits of the quiet organization in one turn, ascending seconds; what the others got done; CPU seconds a second."""

    waits_s: Sequence[float] = field(repr=False)
    others_per_s: float
    cpu: float

    def quantile_ms(self, q: float) -> float:
        """The wait that a share ``q`` of all does not exceed."""
        return self.waits_s[min(len(self.waits_s) - 1, int(q * len(self.waits_s)))] * 1000


class Neighbours(Load):
    """The quiet organization (the first), and busy ones."""

    def __init__(self, up: Servers, seed: int) -> None:
        super().__init__(up, 1 + BUSY, seed)
        self.quiet = self.names[0]
        self.key = api_keys.compose(secrets.token_bytes(api_keys.ENTROPY_BYTES))
        self._connection.execute(
            "INSERT INTO api_keys (id, organization_id, name, key_hash, scopes) VALUES (%s, %s, 'bench', %s, %s)",
            (self._id(), self.quiet, api_keys.digest(self.key.encode()), [str(scope) for scope in api_keys.Scope]),
        )

    def slow_down(self, latency_s: float) -> None:
        """Every answer of the sandbox takes so long."""
        self._http.patch("/_sandbox/behaviour", json={"latency_s": latency_s}).raise_for_status()

    def prepare(self, variant: Variant) -> None:
        """Empty what the last turn left and queue what the others have, without waking anybody."""
        self.lay_out(0)
        self._redis.set(SENTINEL, "1")  # else the process would take Redis for one that lost its memory
        if not variant.busy:
            return
        laid: dict[OrganizationId, list[str]] = {name: [] for name in self.names[1 : 1 + variant.busy]}
        payload = orjson.dumps({"subject": "Your tickets", "text": TEXT}).decode()
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        with (
            self._connection.cursor() as cursor,
            cursor.copy(
                "COPY notifications (id, organization_id, channel, attempts_max, created_at, updated_at, recipient, payload, "
                "idempotency_key) FROM STDIN"
            ) as copy,
        ):
            for number in range(variant.queued):
                name = self.names[1 + number % variant.busy]
                id = self._id()
                key = f"key-{number}" if variant.keyed else None
                copy.write_row((id, name, "email", 8, now, now, variant.recipient.format(number), payload, key))
                laid[name].append(id)
        self._connection.execute("VACUUM ANALYZE notifications")
        self.queue(laid)

    def wake_busy(self, variant: Variant) -> None:
        """The others begin."""
        for name in self.names[1 : 1 + variant.busy]:
            self._redis.publish(self._keys.wake(shard_of(name, SHARDS)), name)

    def trickle(self, url: str, count: int, per_s: float) -> None:
        """Hand in one notification of the quiet organization after the other, evenly."""
        item = {"channel": "email", "recipient": "reader@example.org", "content": {"subject": "Your tickets", "text": TEXT}}
        with httpx.Client(base_url=url, headers={"authorization": f"Bearer {self.key}"}, timeout=DEADLINE_S) as client:
            began_s = time.monotonic()
            for number in range(count):
                time.sleep(max(0.0, began_s + number / per_s - time.monotonic()))
                client.post(f"/v1/orgs/{self.quiet}/notifications", json=item).raise_for_status()

    def waits(self, count: int) -> list[float]:
        """Seconds from accepted to recorded of all ``count`` quiet ones, ascending, when the last is recorded."""
        give_up_at_s = time.monotonic() + DEADLINE_S
        question = (
            "SELECT extract(epoch FROM updated_at - created_at)::float8 FROM notifications "
            "WHERE organization_id = %s AND status = 'delivered' ORDER BY 1"
        )
        while True:
            rows = self._connection.execute(question, (self.quiet,)).fetchall()
            if len(rows) == count:
                return [wait_s for (wait_s,) in rows]
            if len(rows) > count or time.monotonic() > give_up_at_s:
                raise SystemExit(f"{len(rows)} of {count} notifications of the quiet organization were delivered in time")
            time.sleep(0.05)

    def others_done(self) -> int:
        """How many of the others' are delivered."""
        question = "SELECT count(*) FROM notifications WHERE organization_id <> %s AND status = 'delivered'"
        return int((self._connection.execute(question, (self.quiet,)).fetchone() or (0,))[0])

    def forget_quiet(self) -> None:
        """What warmed up does not count."""
        self._connection.execute("DELETE FROM notifications WHERE organization_id = %s", (self.quiet,))


def turn(load: Neighbours, variant: Variant, count: int, per_s: float) -> Wait:
    """A fresh process, the others at work, the trickle."""
    load.prepare(variant)
    environment = {**load.servers.environment(), "DISPATCHER_DRAIN_S": "1"}
    with contestant([sys.executable, "-m", "bench.subject"], environment) as subject:
        url = subject.first_line.split()[1]
        load.trickle(url, WARM_UP, 100.0)
        load.waits(WARM_UP)
        load.forget_quiet()
        load.wake_busy(variant)
        time.sleep(1.0)
        done, began_s = load.others_done(), time.monotonic()
        with accounts({"own": subject.process.pid, **load.servers.pids}) as spent:
            load.trickle(url, count, per_s)
            waits_s = load.waits(count)
            took_s = time.monotonic() - began_s
        done = load.others_done() - done
    if variant.queued and done >= variant.queued - 1:
        raise SystemExit(f"{variant.name}: nothing was left of the {variant.queued} queued, so nobody was in the way")
    return Wait(waits_s, done / took_s, sum(spent.values()) / took_s)


def main(up: Servers, *, rounds: int, queued: int, count: int, per_s: float, latency_s: float, seed: int) -> None:
    """Run ``rounds`` rounds of all variants in turns and print the table."""
    load = Neighbours(up, seed)
    load.slow_down(latency_s)
    variants = [
        Variant("alone"),
        Variant("beside one flood", 1, queued),
        Variant("  to as many readers", 1, queued, "reader{}@example.org", keyed=True),
        Variant("beside 16 that hang", BUSY, BUSY * SILENT_ROWS, "silent-99+{}@sandbox.test"),
        Variant("beside 16 floods", BUSY, queued),
    ]
    turns: dict[str, list[Wait]] = {variant.name: [] for variant in variants}
    for number in range(rounds):
        for variant in variants if number % 2 == 0 else reversed(variants):
            turns[variant.name].append(turn(load, variant, count, per_s))
    load.slow_down(0.0)
    load.close()
    report(turns, queued, count, per_s, latency_s)


def report(turns: dict[str, list[Wait]], queued: int, count: int, per_s: float, latency_s: float) -> None:
    """Print waits, and ratios to the same round's turn alone."""
    alone = turns["alone"]
    print(
        f"\nFairness: {count} notifications of a quiet organization, {per_s:g}/s; {queued:,} queued by the others; "
        f"calls of {latency_s * 1000:g} ms; median [least - most] of {len(alone)} rounds"
    )
    print(f"{'accepted to recorded':<24}{'p50 ms':>22}{'p99 ms':>24}{'p99 / alone':>24}   others/s   CPUs busy")
    for name, rounds in turns.items():
        p50, p99 = ([wait.quantile_ms(q) for wait in rounds] for q in (0.5, 0.99))
        ratios = [wait.quantile_ms(0.99) / own.quantile_ms(0.99) for wait, own in zip(rounds, alone, strict=True)]
        others, cpu = (median([getattr(wait, what) for wait in rounds]) for what in ("others_per_s", "cpu"))
        print(f"{name:<24}{spread(p50, 1):>22}{spread(p99, 1):>24}{spread(ratios, 2):>24}   {others:>8,.0f}   {cpu:>9.2f}")
    print("p99 / alone: to reach 2 at most. The last row asks for more CPU than there is, and shows that.")


@click.command()
@click.option("--rounds", default=5, show_default=True, help="Rounds of every comparison.")
@click.option("--queued", default=100_000, show_default=True, help="Notifications that the others have queued.")
@click.option("--count", default=300, show_default=True, help="Notifications of the quiet organization in one turn.")
@click.option("--per-s", default=25.0, show_default=True, help="How many of them a second.")
@click.option("--latency-s", default=0.05, show_default=True, help="What a call takes.")
@click.option("--seed", default=1, show_default=True)
def command(rounds: int, queued: int, count: int, per_s: float, latency_s: float, seed: int) -> None:
    """What a quiet organization waits, alone and beside others."""
    with servers() as up:
        main(up, rounds=rounds, queued=queued, count=count, per_s=per_s, latency_s=latency_s, seed=seed)
