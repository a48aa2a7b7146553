"""What holds for the limits of a configuration, whoever dispatches for it: its rate, its quota, and the rest after failures.

Part of ``tests/system_checker.py``, which names the invariants. Rates and quotas belong to the account at the provider, so all
processes are judged together; a breaker is judged in each life of its owner. A life begins when its process has asked for what
earlier lives left behind.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import trio

from dispatcher.messages import ProviderPolicy
from dispatcher.model import OrganizationId
from system_network import Call

if TYPE_CHECKING:
    from system_process import Process
    from system_world import World

TAKES_EFFECT_S = 5.0
"""How long it may take until what a life has read is in use: a change may have its configurations read once more."""
PREFETCH = 2
"""Attempts that a channel may have been handed for each call it may make at once: so many may bunch up behind a token each."""
COSTLY = frozenset({"soft", "unknown"})
Key = tuple[OrganizationId, str]


class LimitsJudge:
    """Judges the calls of each channel once all is over. ``break_`` hears of an invariant and how it was broken."""

    def __init__(self, world: World, break_: Callable[[str, str], None]) -> None:
        self._world = world
        self._break = break_
        self._policies: dict[Key, list[ProviderPolicy]] = defaultdict(list)  # by revision, from 1 on
        self._lives: dict[Key, list[tuple[float, Process]]] = defaultdict(list)
        self._misled_s: list[float] = []

    def configured(self, organization_id: OrganizationId, policy: ProviderPolicy) -> None:
        """A configuration changed."""
        self._policies[organization_id, policy.config_id].append(policy)

    def policy_of(self, call: Call) -> ProviderPolicy:
        """The configuration that a call was made with."""
        return self._policies[call.organization_id, call.config_id][call.revision - 1]

    def may_go_elsewhere(self, organization_id: OrganizationId, config_id: str) -> bool:
        """Whether what may have been sent through a configuration may be sent through another."""
        return any(policy.failover_on_unknown for policy in self._policies[organization_id, config_id])

    def life_began(self, process: Process, organization_id: OrganizationId, names: Collection[str]) -> None:
        """A process begins to dispatch through some configurations, of which the first of a channel has the channel's name."""
        for name in names:
            channel, _, config_id = name.partition(":")
            mine = [policy.config_id for policy in self._world.policies[organization_id] if policy.channel == channel]
            self._lives[organization_id, config_id or mine[0]].append((trio.current_time(), process))

    def redis_misleads(self) -> None:
        """Redis forgot: the next life may believe what is no longer true, as it may when the clock of Redis has jumped."""
        self._misled_s.append(trio.current_time())

    def finish(self) -> None:
        """Judge."""
        by_config: dict[Key, list[Call]] = defaultdict(list)
        for call in self._world.network.calls:
            by_config[call.organization_id, call.config_id].append(call)
        for key, calls in by_config.items():
            self._rate(key, calls)
            self._quota(key, calls)
            by_process: dict[Process, list[Call]] = defaultdict(list)
            for call in calls:
                by_process[call.process].append(call)
            for process, of_process in by_process.items():
                self._breaker(process, of_process)

    # --- rates ----------------------------------------------------------------------------------------------------------------

    def _misleading_s(self) -> list[float]:
        return self._misled_s + self._world.clock.jumps_s.get("redis", [])

    def _misled(self, key: Key) -> set[float]:
        """The lives that were the first after Redis forgot: they may have had a whole burst."""
        began_s = [at_s for at_s, _ in self._lives[key]]
        firsts = (bisect_left(began_s, at_s) for at_s in self._misleading_s())
        return {began_s[n] for n in firsts if n < len(began_s)}

    def _rate(self, key: Key, calls: Sequence[Call]) -> None:
        """No window may hold more than the burst, what flowed in, a token for each life, and what had bunched up before it."""
        policies, lives, misled = self._policies[key], [at_s for at_s, _ in self._lives[key]], self._misled(key)
        overlaps_s = self._world.config.dispatch.lease_s  # who believes another clock may own a shard beside its owner so long
        jumps_s = self._world.clock.jumps_s.get("postgres", ())
        for i, early in enumerate(calls):
            low = high = early.revision
            processes = {early.process}
            if any(at_s <= early.began_s < at_s + overlaps_s for at_s in jumps_s):
                continue
            for j in range(i + 1, len(calls)):
                late = calls[j]
                low, high = min(low, late.revision), max(high, late.revision)
                processes.add(late.process)
                used = policies[low - 1 : high]
                rates = [policy.rate_per_s for policy in used if policy.rate_per_s is not None]
                if len(rates) < len(used) or any(early.began_s < at_s <= late.began_s for at_s in jumps_s):
                    break
                window_s, n = late.began_s - early.began_s, j - i + 1
                burst = max(policy.burst for policy in used)
                most = burst + max(rates) * window_s
                most += PREFETCH * max(policy.concurrency_max for policy in used) * len(processes)
                if n <= most:
                    continue
                begun = [at_s for at_s in lives if at_s <= late.began_s and early.began_s <= at_s + TAKES_EFFECT_S]
                if n > most + len(begun) + burst * len(misled.intersection(begun)):
                    names = ", ".join(sorted(process.name for process in processes))
                    self._break("I6", f"{names} made {n} calls for {key[0]} {key[1]} within {window_s:.1f} s")
                    return

    def _quota(self, key: Key, calls: Sequence[Call]) -> None:
        """As long as a window lasts, no more than two of them may be begun in; each has its quota."""
        for i, early in enumerate(calls):
            policies = self._policies[key][early.revision - 1 : early.revision]
            window_s, within = policies[0].quota_window_s, []
            for call in calls[i:]:
                if call.began_s >= early.began_s + window_s:
                    break
                within.append(call)
                policies = self._policies[key][early.revision - 1 : max(early.revision, call.revision)]
            quotas = [policy.quota for policy in policies if policy.quota is not None]
            if not quotas or len(quotas) < len(policies):
                continue
            bunched = PREFETCH * max(policy.concurrency_max for policy in policies) * len({call.process for call in within})
            misled = sum(at_s < early.began_s + window_s for at_s in self._misleading_s())
            if len(within) > max(quotas) * (2 + misled) + bunched:
                self._break("I6", f"{len(within)} calls for {key[0]} {key[1]} within {window_s:.0f} s, of {max(quotas)}")
                return

    # --- breakers -------------------------------------------------------------------------------------------------------------

    def _breaker(self, process: Process, calls: Sequence[Call]) -> None:
        """After so many failures in a row nothing begins for at least half of the shortest open time, in the same life."""
        policy, first = self._world.config.breaker, calls[0]
        lives = [at_s for at_s, living in self._lives[first.organization_id, first.config_id] if living is process]
        told = [call for call in calls if call.outcome in COSTLY or call.outcome in ("not_sent", "delivered")]
        opened_s = 0.0
        row_s: list[float] = []  # when each call of the present row of failures began
        for before, call in pairwise([None, *sorted(told, key=lambda call: call.heard_s)]):
            assert call is not None
            if before is None or call.outcome == "delivered" or before.revision != call.revision:
                row_s.clear()
            if call.outcome == "delivered":
                continue
            row_s.append(call.began_s)
            if len(row_s) < policy.failures_in_a_row or process.last_stop_s > call.began_s:
                continue
            since_s = min(row_s[-policy.failures_in_a_row :])
            until_s = call.heard_s + policy.open_base_s / 2
            opened_s = call.heard_s if len(row_s) == policy.failures_in_a_row else opened_s
            # It may have begun before the breaker opened: then its end changes nothing.
            stale = (before is not None and before.heard_s > call.began_s) or call.began_s <= opened_s < call.heard_s
            if stale or any(at_s <= until_s and since_s < at_s + TAKES_EFFECT_S for at_s in lives):
                continue
            eager = [late for late in calls if call.heard_s < late.began_s < until_s and late.revision == call.revision]
            if eager:
                name, rested_s = f"{first.organization_id} {first.config_id}", eager[0].began_s - call.heard_s
                self._break("I10", f"{process.name} called {name} {rested_s:.2f} s after it had to rest")
                return
