"""Customers who hand notifications in, to whichever process answers, and write down exactly what they were promised.

A careful producer: with a key it repeats the same request until somebody answers; without one it repeats only what can not have
arrived. What was answered with 202 goes into a file, a line for each notification, before anything else is done.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import httpx
import trio
from attrs import frozen

from soak.fleet import Fleet

ANSWER_S = 5.0
"""How long a producer waits for an answer before it takes it for lost. A third of them hang while one of three processes is
stopped, and are handed in again elsewhere after that time."""
OUTSTANDING_MAX = 100
"""Requests under way. Past it nothing new is handed in: a soak on a busy machine should be slow, not a storm of repeats."""
BATCH_MAX = 12
KEYED_SHARE = 0.7
GIVE_UP_S = 180.0
"""A key nobody answers for this long is let go, and told."""


@frozen
class Shop:
    """An organization, and its API key."""

    organization_id: str
    api_key: str


class Producers:
    """``rate_per_s`` notifications altogether, evenly, whatever happens to whom they are handed."""

    def __init__(
        self, shops: Sequence[Shop], fleet: Fleet, rate_per_s: float, accepted: Path, random: Random, first: int = 0
    ) -> None:
        self._shops = shops
        self._fleet = fleet
        self._rate_per_s = rate_per_s
        self._file = accepted.open("a", encoding="utf-8")
        self._random = random
        self._numbers = first  # no two items of a soak have the same
        self._stopping = False
        self._room = trio.Semaphore(OUTSTANDING_MAX)
        self.accepted = 0
        self.answers: Counter[str] = Counter()
        """What came back for each request, repeats included."""
        self.rejected: Counter[str] = Counter()
        """Items refused for a reason that no repeat would change, by code. There should be none."""

    def stop(self) -> None:
        """Hand in nothing new. What is being repeated is repeated to the end."""
        self._stopping = True

    async def run(self) -> None:
        """Until :meth:`stop`, and until every key has its answer."""
        due = trio.current_time()
        try:
            async with httpx.AsyncClient(timeout=ANSWER_S, limits=httpx.Limits(max_connections=None)) as client:
                async with trio.open_nursery() as nursery:
                    while not self._stopping:
                        size = 1 if self._random.random() < 0.3 else self._random.randint(2, BATCH_MAX)
                        shop = self._random.choice(self._shops)
                        await self._room.acquire()
                        nursery.start_soon(self._hand_in, client, shop, [self._item() for _ in range(size)])
                        due = max(due + size / self._rate_per_s, trio.current_time() - 1)
                        await trio.sleep_until(due)
        finally:
            self._file.close()

    def _item(self) -> dict[str, Any]:
        self._numbers += 1
        luck = self._random.random()
        recipient = f"reader.{self._numbers}@example.org"
        if luck < 0.01:
            recipient = f"bounce+{self._numbers}@sandbox.test"
        elif luck < 0.03:
            recipient = f"soft-1+{self._numbers}@sandbox.test"
        item: dict[str, Any] = {"channel": "email", "recipient": recipient, "content": {"subject": "Doors", "text": "At seven."}}
        if self._random.random() < KEYED_SHARE:
            item["idempotency_key"] = f"order-{self._numbers}"
        return item

    async def _hand_in(self, client: httpx.AsyncClient, shop: Shop, items: list[dict[str, Any]]) -> None:
        """Keyed and unkeyed items go separately: they are repeated under different conditions."""
        try:
            for keyed in (True, False):
                chosen = [item for item in items if ("idempotency_key" in item) is keyed]
                give_up_at = trio.current_time() + GIVE_UP_S
                while chosen and trio.current_time() < give_up_at:
                    chosen = await self._ask(client, shop, chosen, keyed)
                    if chosen:
                        await trio.sleep(0.1 + 0.4 * self._random.random())
                self.answers["given up"] += len(chosen)
        finally:
            self._room.release()

    async def _ask(self, client: httpx.AsyncClient, shop: Shop, items: list[dict[str, Any]], keyed: bool) -> list[dict[str, Any]]:
        """One request; what of it is to be repeated."""
        serving = self._fleet.serving
        if not serving:
            return items
        url = f"{self._random.choice(serving).url}/v1/orgs/{shop.organization_id}/notifications"
        document: Any = items[0] if len(items) == 1 else {"items": items}
        try:
            response = await client.post(url, json=document, headers={"authorization": f"Bearer {shop.api_key}"})
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout):
            self.answers["nobody there"] += 1
            return items
        except (httpx.HTTPError, OSError):
            self.answers["no answer"] += 1
            return items if keyed else []
        self.answers[str(response.status_code)] += 1
        if response.status_code != 202:
            if response.status_code not in (409, 503):
                self.rejected[f"status {response.status_code}"] += len(items)
                return []
            return items
        answer = response.json()
        if len(items) == 1:
            self._write_down(shop, items[0], answer["id"])
            return []
        again = []
        for item, verdict in zip(items, answer["items"], strict=True):
            if "id" in verdict:
                self._write_down(shop, item, verdict["id"])
            elif verdict["problem"]["code"] == "request_in_progress":
                again.append(item)
            else:
                self.rejected[verdict["problem"]["code"]] += 1
        return again

    def _write_down(self, shop: Shop, item: dict[str, Any], id: str) -> None:
        self.accepted += 1
        line = {"id": id, "organization": shop.organization_id, "key": item.get("idempotency_key"), "at": time.time()}
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
