"""Carries out a plan of faults, counts them, and notes what each kill interrupted.

A kill is a SIGSTOP, a look, and a SIGKILL: from the moment of the stop the process does nothing any more, so what the look finds
(calls under way at the sandboxes, attempts on record under its name) is what the kill cut off.
"""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

import httpx
import psycopg
import redis
import trio
from attrs import frozen

from soak.fleet import Fleet, Slot
from soak.plan import Fault, Kind
from soak.servers import Postgres, Valkey

LATENCY_S = 0.15
"""Of a provider on a good day: calls that take no time are never interrupted."""
PATIENCE_S = 30.0
"""How long a fault waits for its victim to be there."""


@frozen
class Kill:
    """What one SIGKILL found."""

    at: float
    under_way: int
    """Calls at the sandboxes, of all processes."""
    sending: int | None
    """Attempts on record under the victim's name; None where Postgres was away or the name unknown."""


def between(low: float, high: float, share: float) -> float:
    """A length within a kind's bounds."""
    return low + (high - low) * share


class Saboteur:
    """``fleet``, ``postgres``, ``valkey`` and the sandboxes' URLs are its victims."""

    def __init__(self, fleet: Fleet, postgres: Postgres, valkey: Valkey, sandboxes: Sequence[str], lease_s: float) -> None:
        self._fleet = fleet
        self._postgres = postgres
        self._valkey = valkey
        self._sandboxes = sandboxes
        self._lease_s = lease_s
        self._one_of = {id(server): trio.Lock() for server in (postgres, valkey)}
        self._held_up: Counter[int] = Counter()
        self.done: Counter[Kind] = Counter()
        self.missed: Counter[Kind] = Counter()
        """Faults whose victim was not there within :data:`PATIENCE_S`."""
        self.kills: list[Kill] = []
        self.cut_off = 0
        """Attempts on record (where unknown: calls under way) when a process was stopped, or told again to end."""
        self.log: list[tuple[float, str]] = []
        self.others: list[tuple[float, float]] = []
        """When each fault that was no kill began and was over."""

    async def calm(self, client: httpx.AsyncClient) -> None:
        """All sandboxes as on a good day."""
        for number in range(len(self._sandboxes)):
            await self._behave(client, number)

    async def run(self, plan: Iterable[Fault], kills_max: float, length_s: float) -> None:
        """Until that many kills were made or that much time has passed; when it returns, everything is well again."""
        ends_at = trio.current_time() + length_s
        transport = httpx.AsyncHTTPTransport(retries=5)
        async with httpx.AsyncClient(timeout=60, transport=transport) as client, trio.open_nursery() as nursery:
            for fault in plan:
                await trio.sleep(fault.gap_s)
                slot = await self._victim(fault) if fault.kind in (Kind.KILL, Kind.TERM, Kind.TERM_TWICE, Kind.STOP) else None
                nursery.start_soon(self._do, client, fault, slot)
                if len(self.kills) >= kills_max or trio.current_time() >= ends_at:
                    break

    async def _victim(self, fault: Fault) -> Slot | None:
        with trio.move_on_after(PATIENCE_S):
            while not (idle := self._fleet.idle):  # noqa: ASYNC110 - processes raise no event
                await trio.sleep(0.05)
            slot = idle[fault.target % len(idle)]
            slot.busy = True
            return slot
        self.missed[fault.kind] += 1
        return None

    async def _do(self, client: httpx.AsyncClient, fault: Fault, slot: Slot | None) -> None:
        began_s = trio.current_time()
        try:
            match fault.kind:
                case Kind.KILL | Kind.TERM | Kind.TERM_TWICE | Kind.STOP:
                    if slot is None:
                        return
                    try:
                        await self._to_process(client, fault, slot)
                    finally:
                        slot.busy = False
                case Kind.OUTAGE | Kind.SWALLOW | Kind.ERRORS | Kind.SLOW:
                    await self._to_provider(client, fault)
                case Kind.POSTGRES_RESTART | Kind.POSTGRES_TERMINATE | Kind.POSTGRES_KILL:
                    async with self._one_of[id(self._postgres)]:
                        self._note(fault.kind)
                        await trio.to_thread.run_sync(self._to_postgres, fault)
                case _:
                    async with self._one_of[id(self._valkey)]:
                        self._note(fault.kind)
                        await self._to_valkey(fault)
        except (psycopg.Error, redis.RedisError):  # it is down already
            self.missed[fault.kind] += 1
        else:
            self.done[fault.kind] += 1
        finally:
            if fault.kind is not Kind.KILL:
                self.others.append((began_s, trio.current_time()))

    def _note(self, kind: Kind) -> None:
        self.log.append((trio.current_time(), kind.value))

    async def _to_process(self, client: httpx.AsyncClient, fault: Fault, slot: Slot) -> None:
        slot.awaited = True
        self._note(fault.kind)
        match fault.kind:
            case Kind.KILL:
                slot.signal(signal.SIGSTOP)
                under_way, sending = await self._interrupted(client, slot.incarnation)
                self.kills.append(Kill(trio.current_time(), under_way, sending))
                slot.signal(signal.SIGKILL)
            case Kind.STOP:
                slot.signal(signal.SIGSTOP)
                await self._count_cut_off(client, slot)
                await trio.sleep(self._lease_s + between(1.5, 3, fault.length))
                slot.signal(signal.SIGCONT)
                slot.awaited = False
                return
            case _:
                slot.signal(signal.SIGTERM)
                if fault.kind is Kind.TERM_TWICE:
                    await trio.sleep(between(0.05, 0.6, fault.length))
                    await self._count_cut_off(client, slot)
                    slot.signal(signal.SIGTERM)
        while slot.url is not None:  # noqa: ASYNC110 - a drain is bounded by its settings
            await trio.sleep(0.05)

    async def _count_cut_off(self, client: httpx.AsyncClient, slot: Slot) -> None:
        under_way, sending = await self._interrupted(client, slot.incarnation)
        self.cut_off += under_way if sending is None else sending

    async def _interrupted(self, client: httpx.AsyncClient, incarnation: str | None) -> tuple[int, int | None]:
        under_way, sending = 0, None
        for url in self._sandboxes:
            under_way += (await client.get(f"{url}/_sandbox/statistics")).json()["under_way"]
        if incarnation is not None:
            with suppress(psycopg.Error):
                sending = await trio.to_thread.run_sync(self._sending, incarnation)
        return under_way, sending

    def _sending(self, incarnation: str) -> int:
        with psycopg.connect(self._postgres.url, connect_timeout=1, autocommit=True) as connection:
            sql = "SELECT count(*) FROM notifications WHERE status = 'sending' AND claimed_by = %s"
            row = connection.execute(sql, [incarnation]).fetchone()
        assert row is not None
        return int(row[0])

    async def _to_provider(self, client: httpx.AsyncClient, fault: Fault) -> None:
        number = fault.target % len(self._sandboxes)
        self._note(fault.kind)
        match fault.kind:
            case Kind.OUTAGE:
                outage = ("unavailable", "close", "silent")[fault.target // 7 % 3]
                trouble: dict[str, Any] = {"outage": outage}
            case Kind.SWALLOW:
                trouble = {"drop_after_accept": between(0.2, 0.6, fault.share)}
            case Kind.ERRORS:
                trouble = {"error_mix": {"503": between(0.1, 0.4, fault.share)}}
            case _:
                trouble = {"latency_s": between(0.4, 1.5, fault.share)}
        self._held_up[number] += 1
        await self._behave(client, number, **trouble)
        await trio.sleep(between(0.5, 2.5, fault.length))
        self._held_up[number] -= 1
        if not self._held_up[number]:
            await self._behave(client, number)

    async def _behave(self, client: httpx.AsyncClient, number: int, **trouble: Any) -> None:
        honours = number == 0
        document = {"latency_s": LATENCY_S, "honour_idempotency_keys": honours, **trouble}
        response = await client.put(f"{self._sandboxes[number]}/_sandbox/behaviour", json=document)
        response.raise_for_status()

    def _to_postgres(self, fault: Fault) -> None:
        if fault.kind is Kind.POSTGRES_RESTART:
            self._postgres.restart()
            return
        with psycopg.connect(self._postgres.url, connect_timeout=1, autocommit=True) as connection:
            backends = connection.execute(
                "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() ORDER BY pid"
            ).fetchall()
            if fault.kind is Kind.POSTGRES_TERMINATE:
                share = between(0.2, 1.0, fault.share)
                for (pid,) in backends[: round(share * len(backends))]:
                    connection.execute("SELECT pg_terminate_backend(%s)", [pid])
                return
        if backends:
            with suppress(ProcessLookupError):  # it ended in between
                os.kill(backends[fault.target % len(backends)][0], signal.SIGKILL)

    async def _to_valkey(self, fault: Fault) -> None:
        valkey = self._valkey
        match fault.kind:
            case Kind.VALKEY_STOP:
                valkey.signal(signal.SIGSTOP)
                await trio.sleep(between(1, 4, fault.length))
                valkey.signal(signal.SIGCONT)
            case Kind.FLUSHALL | Kind.SCRIPT_FLUSH:
                await trio.to_thread.run_sync(self._flush, fault.kind)
            case _:
                older = valkey.remember() if fault.kind is Kind.VALKEY_OLDER else None
                if older is not None:
                    await trio.sleep(between(0.3, 1.5, fault.length))
                valkey.kill()
                if older is not None:
                    valkey.recall(older)
                elif fault.kind is Kind.VALKEY_EMPTY:
                    valkey.forget()
                await trio.sleep(between(0, 1.5, fault.share))
                await trio.to_thread.run_sync(valkey.start)

    def _flush(self, kind: Kind) -> None:
        with self._valkey.client() as client:
            if kind is Kind.FLUSHALL:
                client.flushall()
            else:
                client.script_flush()
