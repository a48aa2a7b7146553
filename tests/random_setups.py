"""Random set-ups, people and events, drawn from a seed: everything that planning decides about comes up in some of them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, time, timedelta
from functools import cache
from random import Random
from typing import Any

from attrs import frozen

from dispatcher.model import Channel
from dispatcher.people import ContactPoint, QuietHours, User
from dispatcher.template_sets import TemplateSet
from dispatcher.templates import CompiledTemplate
from event_world import NOW, template

CHANNELS = tuple(Channel)
LOCALES = ("en", "pt", "pt-BR", "de-AT", "ar", "fr")
ZONES = ("UTC", "America/Sao_Paulo", "Pacific/Kiritimati", "Asia/Kathmandu", "Europe/Berlin")
TOPICS = ("news", "security", "orders")
USERS = ("ana", "ben", "eva", "leo")
CONDITIONS = ("data.total > 10", "data.kind in ['a', 'b']", "data.missing", "data.total + 'x' > 1", "not data.silent")


@frozen
class Drawn:
    """One world: ``contacts`` are addresses and what was reported of them; ``lanes`` as the desk knows them."""

    definitions: Mapping[str, Mapping[str, Mapping[str, Any]]]
    default_locale: str
    templates: Mapping[tuple[str, Channel], TemplateSet]
    users: tuple[User, ...]
    contacts: tuple[tuple[Channel, str, str], ...]
    lanes: Mapping[str, bool]
    events: tuple[Mapping[str, Any], ...]
    items: tuple[Mapping[str, Any], ...]


@cache
def compiled(name: str, channel: Channel, locale: str, text: str, subject: str | None) -> CompiledTemplate:
    """Worlds share their templates, because compiling one costs more than anything else in them."""
    return CompiledTemplate.of(template(name, channel, locale, text, subject))


def drawn(random: Random) -> Drawn:
    """A world."""
    return _Draw(random).world()


class _Draw:
    def __init__(self, random: Random) -> None:
        self.random = random

    def world(self) -> Drawn:
        maybe = self.maybe
        users = tuple(self.user(id) for id in USERS if maybe(0.8))
        policy: dict[str, Any] = {"time_zone": self.one(ZONES)}
        if maybe(0.3):
            start = self.random.randrange(24)
            policy["quiet_hours"] = {"start": f"{start:02d}:00", "end": f"{(start + 9) % 24:02d}:30"}
        caps = [
            {"name": f"cap-{number}", "count_max": self.random.randint(1, 3), "window_s": 86_400}
            | ({"topic": self.one(TOPICS)} if maybe(0.3) else {})
            | ({"channel": self.one(CHANNELS)} if maybe(0.3) else {})
            for number in range(self.random.randint(0, 2))
        ]
        definitions: dict[str, dict[str, dict[str, Any]]] = {
            "rule": {f"rule-{number}": self.rule() for number in range(self.random.randint(0, 3))},
            "topic": {name: self.topic() for name in TOPICS if maybe(0.8)},
            "policy": {"default": policy | ({"caps": caps} if caps else {})},
        }
        addresses = [(point.channel, point.recipient) for user in users for point in user.points]
        addresses += [(Channel.EMAIL, "guest@example.org"), (Channel.SMS, "+15550000001")]
        kinds = ("bounced", "complained", "unsubscribed", "invalid")
        return Drawn(
            definitions,
            self.one(LOCALES),
            {(name, channel): self.templates(name, channel) for name in ("one", "two") for channel in CHANNELS if maybe(0.9)},
            users,
            tuple((*address, self.one(kinds)) for address in addresses if maybe(0.15)),
            {channel.value: maybe(0.4) for channel in CHANNELS if maybe(0.85)},
            tuple(self.event(number) for number in range(2)),
            tuple(self.item(number) for number in range(2)),
        )

    def user(self, id: str) -> User:
        points = []
        for number, channel in enumerate(CHANNELS):
            for other in range(self.one((0, 1, 1, 2))):
                expires_at_s = self.one((None, NOW - 10, NOW + 86_400)) if channel is Channel.PUSH else None
                recipient = {
                    Channel.EMAIL: f"{id}{other}@example.org",
                    Channel.PUSH: f"token-{id}-{other}",
                }.get(channel, f"+1555{number}{other}{len(id)}{ord(id[0])}00")
                point_id = f"0192d3a4-0000-7000-8000-{ord(id[0]):06d}{number:03d}{other:03d}"
                points.append(ContactPoint(point_id, channel, recipient, expires_at_s=expires_at_s))
        topics, channels = (*TOPICS, "*"), (*(channel.value for channel in CHANNELS), "*")
        preferences = {(self.one(topics), self.one(channels)): self.maybe(0.4) for _ in range(self.one((0, 0, 1, 3)))}
        quiet = QuietHours(time(self.random.randrange(24)), time(self.random.randrange(24), 30)) if self.maybe(0.3) else None
        locale, zone = self.one((None, *LOCALES)), self.one((None, *ZONES))
        return User(id, locale, zone, quiet, tuple(points), preferences)

    def rule(self) -> dict[str, Any]:
        maybe = self.maybe
        channels = self.random.sample(CHANNELS, self.random.randint(1, 3))
        recipients: list[dict[str, Any]] = [
            self.one(({"user": "data.user"}, {"user": "data.users"}, {"user_ids": self.random.sample(USERS, 2)}))
        ]
        is_digest = maybe(0.15)
        contact = {"email": "data.email", "sms": "data.phone"}
        there = {name: path for name, path in contact.items() if Channel(name) in channels}
        if there and maybe(0.4) and not is_digest:
            recipients.append({"contact": there, "locale": "data.language", "time_zone": "data.zone"})
        sends: list[dict[str, Any]] = [{"channel": channel.value, "template": self.one(("one", "two"))} for channel in channels]
        for send in sends:
            if maybe(0.3):
                send["variables"] = {"extra": self.one(("data.total * 2", "data.users", "data.name|upper"))}
            if send["channel"] == "email" and maybe(0.2) and not is_digest:
                send["attachments"] = "data.files"
        rule: dict[str, Any] = {
            "event": self.one(("shop.order.paid", "shop.order.paid", "shop.*", "shop.order.sent")),
            "recipients": recipients,
            "send": sends,
        }
        if maybe(0.4):
            rule["when"] = self.one(CONDITIONS)
        if maybe(0.7):
            rule["topic"] = self.one(TOPICS)
        if maybe(0.3):
            rule["mode"] = "first"
        if maybe(0.2):
            rule["lane"] = "bulk"
        if maybe(0.1):
            rule["enabled"] = False
        if is_digest:
            rule["digest"] = {"window_s": 3600} | ({"key": "data.kind"} if maybe(0.5) else {})
        elif maybe(0.3):
            rule["delay_s"] = self.one((60, 3600))
        elif maybe(0.4):
            rule["at"] = {"date": self.one(("data.starts", "data.missing")), "offset_s": self.one((-3600, 0, 1800))}
        if maybe(0.3):
            rule["window"] = {"start": self.clock(), "end": self.clock()}
        if maybe(0.3):
            rule["expires_in_s"] = self.one((60, 7200))
        return rule

    def topic(self) -> dict[str, Any]:
        found: dict[str, Any] = {"critical": True} if self.maybe(0.25) else {}
        if self.maybe(0.3):
            found["default"] = self.random.sample([channel.value for channel in CHANNELS], 2)
        return found

    def templates(self, name: str, channel: Channel) -> TemplateSet:
        text = self.one(("{{ name }}", "{{ name }} {{ total }}", "Fixed", "{{ total|number }}" if self.maybe(0.5) else "Fixed"))
        if self.maybe(0.03):
            text += " {{ nowhere }}"
        subject = "About {{ name }}" if channel is Channel.EMAIL else None
        locales = self.random.sample(LOCALES, self.random.randint(1, 3))
        return TemplateSet({locale: compiled(name, channel, locale, text, subject) for locale in locales}, locales[0])

    def event(self, number: int) -> dict[str, Any]:
        moment = datetime.fromtimestamp(NOW, UTC) + timedelta(hours=self.one((-2, 1, 30)))
        data = {
            "user": self.one(USERS),
            "users": [self.one(USERS), self.one(USERS)],
            "email": self.one(("guest@example.org", "guest@example.org", None)),
            "phone": self.one(("+15550000001", 5)),
            "language": self.one(LOCALES),
            "zone": self.one((*ZONES, "Nowhere/City")),
            "name": "Somebody",
            "total": self.random.randint(0, 30),
            "kind": self.one("abc"),
            "starts": self.one((moment.isoformat(), moment.replace(tzinfo=None).isoformat(), moment.date().isoformat())),
            "files": self.one((None, [], [{"filename": "a.pdf", "content_type": "application/pdf", "content": "QUJD"}])),
        }
        found = {"id": f"evt-{number}", "type": self.one(("shop.order.paid",) * 4 + ("shop.order.sent", "other")), "data": data}
        return found | ({"locale": self.one(LOCALES)} if self.maybe(0.3) else {})

    def item(self, number: int) -> dict[str, Any]:
        """A notification handed in directly, with something to decide about."""
        maybe, channel = self.maybe, self.one(CHANNELS)
        given = {Channel.EMAIL: "guest@example.org", Channel.PUSH: "token-guest"}.get(channel, "+15550000001")
        item: dict[str, Any] = {"channel": channel.value, "idempotency_key": f"item-{number}"}
        if maybe(0.6):
            item["user_id"] = self.one((*USERS, "nobody"))
        if "user_id" not in item or maybe(0.2):
            item |= {"recipient": given, "topic": self.one(TOPICS)}
        elif maybe(0.7):
            item["topic"] = self.one(TOPICS)
        if maybe(0.3):
            content = {"text": "Hello"} | ({"subject": "Hello"} if channel is Channel.EMAIL else {})
            item["content"] = content
        else:
            item |= {"template": self.one(("one", "two")), "variables": {"name": "Somebody", "total": 3}}
            if maybe(0.3):
                item["locale"] = self.one(LOCALES)
        if maybe(0.3):
            item["send_at"] = (datetime.fromtimestamp(NOW, UTC) + timedelta(hours=self.one((-1, 3)))).isoformat()
        if maybe(0.2):
            item["expires_at"] = (datetime.fromtimestamp(NOW, UTC) + timedelta(hours=5)).isoformat()
        if maybe(0.2):
            item["ignore_suppression"] = True
        return item

    def clock(self) -> str:
        return f"{self.random.randrange(24):02d}:{self.one((0, 30)):02d}"

    def maybe(self, chance: float) -> bool:
        return self.random.random() < chance

    def one(self, choices: Any) -> Any:
        return choices[self.random.randrange(len(choices))]
