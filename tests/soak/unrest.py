"""What keeps a healthy dispatcher on the move for the leak check: nothing here is a fault of its servers, all of it is everyday.

Providers that hang, reset and refuse, so that calls are cancelled at their deadline; producers that hang up in the middle of a
request; listeners that come and go; templates and configurations that change; organizations that fall asleep and wake up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from random import Random
from urllib.parse import urlsplit

import httpx
import trio

from running import Customer, mail, provider

TROUBLES: Sequence[dict[str, object]] = (
    {"outage": "silent"},
    {"outage": "close"},
    {"outage": "unavailable"},
    {"latency_s": 3.0},
    {"drop_after_accept": 0.3},
    {"error_mix": {"503": 0.3, "429": 0.1}},
)
REQUEST_S = 10.0


class Unrest:
    """``done`` counts what was done to it."""

    def __init__(self, url: str, customers: Sequence[Customer], sandbox: str, random: Random) -> None:
        self._url = url
        self._customers = customers
        self._sandbox = sandbox
        self._random = random
        self.done: Counter[str] = Counter()

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            for part in (self._troubles, self._hang_ups, self._listeners, self._listeners, self._configurations, self._templates):
                nursery.start_soon(part)

    async def _troubles(self) -> None:
        """Well for a few seconds, in trouble for one or two."""
        async with httpx.AsyncClient(timeout=REQUEST_S) as client:
            while True:
                for trouble in ({}, self._random.choice(TROUBLES)):
                    document = {"latency_s": 0.05, **trouble}
                    (await client.put(f"{self._sandbox}/_sandbox/behaviour", json=document)).raise_for_status()
                    await trio.sleep(self._random.uniform(1, 2) if trouble else self._random.uniform(1, 4))
                self.done["provider in trouble"] += 1

    async def _hang_ups(self) -> None:
        """A producer that leaves in the middle of its request, or does not wait for the answer."""
        parts = urlsplit(self._url)
        assert parts.hostname is not None
        assert parts.port is not None
        while True:
            customer = self._random.choice(self._customers)
            body = b'{"channel": "email", "recipient": "gone@example.org", "content": {"subject": "A", "text": "B"}}'
            request = (
                f"POST /v1/orgs/{customer.organization_id}/notifications HTTP/1.1\r\nhost: x\r\n"
                f"authorization: Bearer {customer.key}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
            ).encode() + body
            async with await trio.open_tcp_stream(parts.hostname, parts.port) as stream:
                await stream.send_all(request[: self._random.randrange(1, len(request) + 1)])
                await trio.sleep(self._random.choice((0, 0, 0.02)))
            self.done["producer hung up"] += 1
            await trio.sleep(self._random.uniform(0.05, 0.3))

    async def _listeners(self) -> None:
        """A listener that replays, follows for a moment, and goes with or without a word."""
        while True:
            customer = self._random.choice(self._customers)
            async with customer.listen("0" if self._random.random() < 0.3 else None) as feed:
                with trio.move_on_after(self._random.uniform(0, 3)):
                    while True:
                        await feed.next()
            self.done["listener came and went"] += 1

    async def _configurations(self) -> None:
        """A new revision of a provider configuration, in force at once."""
        while True:
            customer = self._random.choice(self._customers)
            (configuration,) = (await customer.get("providers"))["items"]
            document = {"settings": provider(self._sandbox, categories=[f"c{self._random.randrange(1000)}"])["settings"]}
            (await customer.call("PUT", f"providers/{configuration['id']}", document)).raise_for_status()
            self.done["configuration changed"] += 1
            await trio.sleep(self._random.uniform(0.5, 2))

    async def _templates(self) -> None:
        """A new version of a template, used, read, and retired."""
        while True:
            customer = self._random.choice(self._customers)
            text = f"Hello {{{{ name }}}}, {self._random.randrange(1_000_000)}"
            document = {"name": "hello", "channel": "email", "locale": "en", "subject": "Hello", "body_template": text}
            template = (await customer.post("templates", document))["id"]
            item = {key: value for key, value in mail("templated@example.org").items() if key != "content"}
            await customer.call("POST", "notifications", {**item, "template": "hello", "variables": {"name": "Ana"}})
            await customer.get("notifications?page_size=5")
            (await customer.call("DELETE", f"templates/{template}")).raise_for_status()
            self.done["template changed"] += 1
            await trio.sleep(self._random.uniform(0.3, 1))
