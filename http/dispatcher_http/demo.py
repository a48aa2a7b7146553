"""The demo: a whole dispatcher with sandboxes for providers, used through nothing but its public HTTP and websocket interface.

It starts everything in a scratch folder, tells the story of :mod:`dispatcher_http.demo_story`, shows what the event stream
says while it happens, ends with what became of each group, and leaves nothing behind.
"""

from __future__ import annotations

import secrets
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import orjson
import trio
from attrs import define, field

from actors.io.http import PoolLimits, TrioTransport, open_http_pool
from actors.store import api_keys, organizations
from dispatcher.config import Config, from_mapping
from dispatcher.errors import DispatcherError
from dispatcher.ids import RANDOM_BITS, uuid7
from dispatcher.model import OrganizationId
from dispatcher_http import demo_events, demo_providers
from dispatcher_http.demo_story import TEMPLATES, Group, groups
from dispatcher_http.listener import listen
from dispatcher_http.serving import Service, allowing, open_servers, open_service
from dispatcher_sandbox.behaviour import Outage
from dispatcher_sandbox.sandbox import Sandbox, open_sandbox

ORGANIZATION = OrganizationId("concert-hall")
STORY_DEADLINE_S = 90.0
OUTAGE_S = 4.0
"""How long the provider stays down once the breaker has opened."""
SETTINGS = {
    "DISPATCHER_PORT": "0",
    "DISPATCHER_LOG_LEVEL": "error",
    "DISPATCHER_PUBLIC_URL": "https://notify.concert-hall.example",  # mails carry links to unsubscribe that begin like this
    # Impatient, so that the story is short: the defaults are for providers, not for an audience.
    "DISPATCHER_RETRY_BASE_S": "1",
    "DISPATCHER_RETRY_CAP_S": "3",
    "DISPATCHER_ATTEMPTS_MAX": "20",
    "DISPATCHER_BREAKER_OPEN_BASE_S": "2",
    "DISPATCHER_BREAKER_OPEN_CAP_S": "4",
}


_OF_AN_ATTEMPT = frozenset({"notification.delivered", "notification.failed", "notification.retrying"})


class DemoFailed(DispatcherError):
    """Something became of a notification that should not have."""


@define
class Tally:
    """What one group handed in, was told, and saw happen."""

    group: Group
    ids: set[str] = field(factory=set)
    accepted: int = 0
    duplicates: int = 0
    rejected: int = 0
    attempts: int = 0
    states: dict[str, str] = field(factory=dict)
    effects: int = 0

    @property
    def delivered(self) -> int:
        return sum(state == "delivered" for state in self.states.values())

    @property
    def failed(self) -> int:
        return sum(state == "failed" for state in self.states.values())

    @property
    def canceled(self) -> int:
        return sum(state == "canceled" for state in self.states.values())

    @property
    def finished(self) -> bool:
        ended = self.delivered + self.failed + self.canceled
        return len(self.ids) >= self.group.expected.accepted and ended >= len(self.ids)

    @property
    def as_expected(self) -> bool:
        e = self.group.expected
        return (
            self.accepted,
            self.duplicates,
            self.rejected,
            self.delivered,
            self.failed,
            self.canceled,
            self.effects,
        ) == (
            e.accepted,
            e.duplicates,
            e.rejected,
            e.delivered,
            e.failed,
            e.canceled,
            e.effects,
        )


class Progress:
    """One line that shows the stream's news as they come; on a terminal it is redrawn, elsewhere printed now and then."""

    def __init__(self, write: Callable[[str], None], live: bool) -> None:
        self._write = write
        self._live = live
        self._counts: Counter[str] = Counter()
        self._shown_at_s = 0.0

    def note(self, kind: str) -> None:
        """Count one event of the stream and show it."""
        self._counts[kind.removeprefix("notification.")] += 1
        now_s = time.monotonic()
        if kind.startswith(("channel.", "contact.")):
            self.say(f"  stream: {kind.removeprefix('channel.').replace('_', ' ').replace('.', ' ')}")
        elif now_s - self._shown_at_s > (0.1 if self._live else 2.0):
            self._shown_at_s = now_s
            counts = "  ".join(f"{name} {count}" for name, count in sorted(self._counts.items()) if "." not in name)
            self._write(f"\r  stream: {counts}   " if self._live else f"  stream: {counts}\n")

    def say(self, line: str) -> None:
        """A line of its own."""
        self._write(f"\r{line:<78}\n" if self._live else f"{line}\n")


class Demo:
    """One telling of the story."""

    def __init__(
        self, service: Service, sandbox: Sandbox, others: Sandbox, client: httpx.AsyncClient, key: str, progress: Progress
    ) -> None:
        self._service = service
        self._sandbox = sandbox  # of the first choice for mail
        self._others = others  # of everybody else
        self._client = client
        self._key = key
        self._progress = progress
        self._tallies: dict[str, Tally] = {}
        self._early: dict[str, list[Mapping[str, Any]]] = {}  # events that came before the answer that names their id
        self._breaker_opened = trio.Event()
        self._contacts: set[str] = set()  # what contacts have become
        self._news = trio.Event()

    async def tell(self) -> list[Tally]:
        """Set up, tell every group's part, wait until all is decided, and ask the provider what it saw."""
        await self._set_up()
        tallies = []
        async with listen(self._service.url, ORGANIZATION, self._key) as events, trio.open_nursery() as nursery:
            nursery.start_soon(self._follow, events)
            for group in groups(self._others.url):
                tally = Tally(group)
                tallies.append(tally)
                self._progress.say(f"{group.name}: {group.story}")
                await self._tell_group(tally)
                await self._finished(tally)
            nursery.cancel_scope.cancel()
        for tally in tallies:
            tally.effects = sum(sandbox.ledger.notifications[id] for sandbox in self._sandboxes for id in tally.ids)
        return tallies

    @property
    def _sandboxes(self) -> tuple[Sandbox, ...]:
        return self._sandbox, self._others

    async def _set_up(self) -> None:
        for name, hooked in (("mail", self._sandbox), ("texts", self._others), ("whatsapp", self._others)):
            await self._add_reporting(getattr(demo_providers, name)(hooked), hooked)
        for document in demo_providers.devices(self._others):
            await self._post("providers", document)
        for template in TEMPLATES:
            await self._post("templates", {name: value for name, value in template.items() if value is not None})
        for preset in demo_events.PRESETS:
            await self._post(f"presets/{preset}/install", {})
        await self._send("PUT", f"rules/{demo_events.REMINDER_RULE}", demo_events.REMINDER)
        for resource, person in demo_events.PEOPLE.items():
            await self._send("PUT", resource, person)

    async def _add_reporting(self, document: Mapping[str, Any], sandbox: Sandbox) -> None:
        """Add a provider, then tell it and its configuration where it reports to."""
        id = (await self._post("providers", document))["id"]
        url = f"{self._service.url}/v1/orgs/{ORGANIZATION}/providers/{id}/webhook"
        settings = dict(document["settings"])
        match document["provider"]:
            case "sendgrid":
                settings["event_webhook_public_key"] = sandbox.hook("sendgrid", url)["public_key"]
            case "twilio_sms":
                settings["status_callback_url"] = url
            case "ses":  # the topic is known before its owner confirms the subscription
                settings["sns_topic_arn"] = demo_providers.TOPIC
            case _:
                sandbox.hook("meta", url, None, **demo_providers.META_SECRETS)
                return
        await self._send("PUT", f"providers/{id}", {"settings": settings})
        if document["provider"] == "ses":
            sandbox.hook("ses", url, None, topic_arn=demo_providers.TOPIC, origin=sandbox.url)

    async def _tell_group(self, tally: Tally) -> None:
        group = tally.group
        if group.from_events:
            await self._tell_events(tally)
            return
        if group.standby:
            await self._add_reporting(demo_providers.standby(self._others), self._others)
        if group.outage or group.standby:
            self._sandbox.change(outage=Outage.UNAVAILABLE)
        for _ in range(1 + group.repeats):
            if group.batch:
                await self._hand_in(tally, group.items)
            else:
                for item in group.items:
                    self._count(tally, "accepted", (await self._post("notifications", item))["id"])
        if group.outage:
            with trio.move_on_after(STORY_DEADLINE_S / 3):
                await self._breaker_opened.wait()
            await trio.sleep(OUTAGE_S)
            self._sandbox.change(outage=Outage.NONE)
            self._progress.say("  the provider is back")
        if group.standby:
            await self._finished(tally)
            self._sandbox.change(outage=Outage.NONE)
        if group.later:
            with trio.move_on_after(STORY_DEADLINE_S / 3):
                while not (group.contacts <= self._contacts and tally.failed):
                    self._news = trio.Event()
                    await self._news.wait()
            await self._hand_in(tally, group.later)

    async def _tell_events(self, tally: Tally) -> None:
        """Hand events in, say what one of the mails says and why one came, and cancel what belongs to the returned tickets."""
        answer = await self._post("events", {"items": demo_events.events(datetime.now(UTC))})
        refused = [item["problem"]["detail"] for item in answer["items"] if "problem" in item]
        if refused:
            raise DemoFailed(f"an event was refused: {refused[0]}")
        made = [(item["event"]["id"], each) for item in answer["items"] for each in item["event"]["items"]]
        for _, each in made:
            self._count(tally, "accepted", each["id"])
        first = made[0][1]["id"]
        subject = (await self._send("GET", f"notifications/{first}"))["payload"]["subject"]
        self._progress.say(f"  {made[0][0]} became {sum(event == made[0][0] for event, _ in made)}: {subject}")
        waiting = next(each["id"] for _, each in made if each["status"] == "scheduled")
        chain = (await self._send("GET", f"notifications/{waiting}/explain"))["decisions"]
        self._progress.say("  the reminder, because: " + ", ".join(each["code"] for each in chain))
        with trio.move_on_after(STORY_DEADLINE_S / 3):
            while tally.delivered < tally.group.expected.delivered:
                self._news = trio.Event()
                await self._news.wait()
        canceled = (await self._post("notifications/cancel", {"correlation_id": demo_events.CANCELED}))["canceled"]
        self._progress.say(f"  {demo_events.CANCELED} is given back: {canceled} reminder canceled")

    async def _hand_in(self, tally: Tally, items: Sequence[Mapping[str, Any]]) -> None:
        answer = await self._post("notifications", {"items": list(items)})
        for verdict in answer["items"]:
            self._count(tally, verdict["status"], verdict.get("id"))
            if "diverted" in verdict:
                diverted = verdict["diverted"]
                self._progress.say(f"  diverted: the {diverted['from']} contact is {diverted['reason']}")
            elif tally.group.later and "problem" in verdict:
                self._progress.say(f"  refused: {verdict['problem']['detail']}")

    async def _finished(self, tally: Tally) -> None:
        with trio.move_on_after(STORY_DEADLINE_S):
            while not tally.finished:
                self._news = trio.Event()
                await self._news.wait()

    def _count(self, tally: Tally, status: str, id: str | None) -> None:
        if status == "rejected" or id is None:
            tally.rejected += 1
            return
        if status == "duplicate":
            tally.duplicates += 1
        else:
            tally.accepted += 1
        tally.ids.add(id)
        self._tallies[id] = tally
        for event in self._early.pop(id, ()):
            self._hear(event)

    async def _follow(self, events: Any) -> None:
        async for text in events:
            self._hear(orjson.loads(text))

    def _hear(self, event: Mapping[str, Any]) -> None:
        kind = event["type"]
        if kind == "channel.breaker_opened":
            self._breaker_opened.set()
        if kind == "contact.changed":
            self._contacts.add(event["status"])
        id = event.get("id")
        if id is not None:
            tally = self._tallies.get(id)
            if tally is None:
                self._early.setdefault(id, []).append(event)
                return
            tally.states[id] = event.get("status", tally.states.get(id, ""))
            if kind in _OF_AN_ATTEMPT:
                tally.attempts += 1
        self._progress.note(kind)
        self._news.set()

    async def _post(self, resource: str, document: Mapping[str, Any]) -> Any:
        return await self._send("POST", resource, document)

    async def _send(self, method: str, resource: str, document: Mapping[str, Any] | None = None) -> Any:
        response = await self._client.request(
            method,
            f"{self._service.url}/v1/orgs/{ORGANIZATION}/{resource}",
            content=None if document is None else orjson.dumps(document),
            headers={"authorization": f"Bearer {self._key}", "content-type": "application/json"},
            timeout=30,
        )
        if response.status_code >= 300:
            raise DemoFailed(f"{method} {resource} was answered {response.status_code}: {response.json().get('detail')}")
        return response.json()


async def run(write: Callable[[str], None]) -> bool:
    """Tell the story. True when everything became of it what should have.

    Raises KeyboardInterrupt after a SIGINT or SIGTERM, when everything is cleaned up.
    """
    good = interrupted = False
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                nonlocal interrupted
                async for _ in signals:
                    interrupted = True
                    nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            good = await _run(write)
            nursery.cancel_scope.cancel()
    if interrupted:
        raise KeyboardInterrupt
    return good


async def _run(write: Callable[[str], None]) -> bool:
    """Tell the story in a scratch folder."""
    progress = Progress(write, sys.stdout.isatty())
    with tempfile.TemporaryDirectory(prefix="dispatcher-demo-") as folder:
        progress.say("Starting Postgres, Valkey, two sandboxes and the dispatcher ...")
        async with open_sandbox() as sandbox, open_sandbox() as others:
            sandbox.change(honour_idempotency_keys=True)
            config = allowing(from_mapping({**SETTINGS, "DISPATCHER_DATA_DIR": folder}), (sandbox, others), Path(folder))
            async with open_servers(config) as complete, open_service(complete) as service:
                began_s = time.monotonic()
                tallies = await _tell(complete, service, sandbox, others, progress)
                seconds = time.monotonic() - began_s
    write(_table(tallies))
    good = all(tally.as_expected for tally in tallies)
    sent = sum(tally.accepted for tally in tallies)
    verdict = "every group as promised." if good else "NOT as promised, see above."
    progress.say(f"\n{sent} notifications in {seconds:.1f} s; {verdict}")
    return good


async def _tell(config: Config, service: Service, sandbox: Sandbox, others: Sandbox, progress: Progress) -> list[Tally]:
    key = api_keys.compose(secrets.token_bytes(api_keys.ENTROPY_BYTES))
    pool = service.node.pool
    await organizations.create(pool, ORGANIZATION, "The Concert Hall", "en")
    id = uuid7(time.time_ns() // 1_000_000, secrets.randbits(RANDOM_BITS))
    await api_keys.create(pool, id, ORGANIZATION, "demo", key, list(api_keys.Scope))
    async with (
        open_http_pool(limits=PoolLimits(), tls_context=None) as http_pool,
        httpx.AsyncClient(transport=TrioTransport(http_pool)) as client,
    ):
        return await Demo(service, sandbox, others, client, key, progress).tell()


def _table(tallies: list[Tally]) -> str:
    columns = ("accepted", "duplicates", "rejected", "delivered", "failed", "canceled", "attempts", "effects")
    lines = ["", f"{'group':<14}" + "".join(f"{name:>12}" for name in columns)]
    for tally in tallies:
        numbers = "".join(f"{getattr(tally, name):>12}" for name in columns)
        lines.append(f"{tally.group.name:<14}{numbers}   {'as promised' if tally.as_expected else 'WRONG'}")
    return "\n".join(lines) + "\n"
