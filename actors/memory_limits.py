"""What the queue in memory keeps of channels' limits: the records of earlier lives and the counters of quotas.

Step for step what the scripts of :mod:`actors.limit_scripts` do. Every method is one atomic step, at a moment of the server's
clock.
"""

from __future__ import annotations

from collections.abc import Mapping

from attrs import define, field

from actors.ports import KEPT_S
from dispatcher.channel_memory import Kept
from dispatcher.model import OrganizationId
from dispatcher.quota import QuotaAnswer, QuotaAsk

_Key = tuple[OrganizationId, str]


@define
class _Record:
    """One hash, kept until ``expires_ms``."""

    life: int
    at_ms: int
    expires_ms: int
    fields: dict[str, str]


@define
class _Counter:
    """One counter, until its window ends."""

    account: str
    used: int
    ends_ms: int


@define
class MemoryLimits:
    """Records and counters of all organizations."""

    records: dict[_Key, _Record] = field(factory=dict)
    counters: dict[_Key, _Counter] = field(factory=dict)

    def take(self, organization_id: OrganizationId, name: str, now_ms: int) -> Kept:
        """Read a record and make it the reader's."""
        record = self._record((organization_id, name), now_ms)
        if record is None:
            record = self.records[organization_id, name] = _Record(0, now_ms, 0, {})
        record.life = max(record.life + 1, now_ms)
        kept = Kept(record.life, (now_ms - record.at_ms) / 1000.0, dict(record.fields))
        record.at_ms = now_ms
        record.expires_ms = now_ms + KEPT_S * 1000
        record.fields["clean"] = "0"
        return kept

    def keep(self, organization_id: OrganizationId, name: str, life: int, fields: Mapping[str, str], now_ms: int) -> None:
        """Write a record, unless somebody has read it since."""
        record = self._record((organization_id, name), now_ms)
        if record is None:
            record = self.records[organization_id, name] = _Record(life, now_ms, 0, {})
        if record.life != life:
            return
        record.at_ms = now_ms
        record.expires_ms = now_ms + KEPT_S * 1000
        record.fields.update(fields)

    def ask(self, organization_id: OrganizationId, name: str, ask: QuotaAsk, now_ms: int) -> QuotaAnswer:
        """Lease units or take some back."""
        key = (organization_id, name)
        window_ms = int(ask.policy.window_s * 1000)
        counter = self.counters.get(key)
        used, ends_ms = 0, 0
        if counter is not None and counter.account == ask.policy.account and counter.ends_ms > now_ms:
            used, ends_ms = counter.used, counter.ends_ms
        if ask.n < 0:
            if ends_ms == ask.window and ends_ms > now_ms:
                used = max(0, used + ask.n)
                self.counters[key] = _Counter(ask.policy.account, used, ends_ms)
                if not used:
                    del self.counters[key]
            return QuotaAnswer(0, used, ends_ms, max(0, ends_ms - now_ms) / 1000.0)
        if ask.window > now_ms:
            used, ends_ms = max(used, ask.used), max(ends_ms, ask.window)
        if ends_ms <= now_ms:
            used, ends_ms = 0, now_ms + window_ms
        ends_ms = min(ends_ms, now_ms + window_ms)
        granted = max(0, min(ask.n, ask.policy.quota - used))
        self.counters[key] = _Counter(ask.policy.account, used + granted, ends_ms)
        return QuotaAnswer(granted, used + granted, ends_ms, (ends_ms - now_ms) / 1000.0)

    def _record(self, key: _Key, now_ms: int) -> _Record | None:
        record = self.records.get(key)
        return record if record is not None and record.expires_ms > now_ms else None
