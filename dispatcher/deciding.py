"""Deciding about one message for one person by one channel: a chain of decisions, in the order of ``Step``, and what it comes to.

The same function decides about what a rule wants and about what is handed in directly, for a dry run and for a real one.
Invariant: it depends on nothing but its arguments, and a chain that does not end has one decision of every step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any, Final

from attrs import evolve

from dispatcher.asking_again import remembered
from dispatcher.audience import audience_of, serves
from dispatcher.audience import lane as lane_of
from dispatcher.caps import CapUse, caps_for, counted, within
from dispatcher.contacts import IGNORABLE, ContactStatus, address_of
from dispatcher.decisions import ENDS, Code, Decision, Step, decided
from dispatcher.localization import Localization
from dispatcher.mail_extras import extras_faults
from dispatcher.model import Channel
from dispatcher.moments import moment_of
from dispatcher.people import ContactPoint, User
from dispatcher.planned import CapTimes, Fate, Gathered, Planned, Skipped, Way, Wish, World
from dispatcher.preferences import allowed
from dispatcher.problems import Problem, escape_pointer
from dispatcher.template_limits import MissingVariable, TemplateError
from dispatcher.template_sets import TemplateSet
from dispatcher.templates import payload_size
from dispatcher.translations import messages_for
from dispatcher.unsubscribe import Unsubscription, unsubscribe_headers

POINTS_MAX: Final = 20
"""A user's push tokens that one message goes to; more are of apps that were removed long ago."""
_CONTACT_CODES: Final = {
    ContactStatus.ACTIVE: Code.CONTACT_USABLE,
    ContactStatus.BOUNCED: Code.CONTACT_BOUNCED,
    ContactStatus.COMPLAINED: Code.CONTACT_COMPLAINED,
    ContactStatus.UNSUBSCRIBED: Code.CONTACT_UNSUBSCRIBED,
    ContactStatus.INVALID: Code.CONTACT_INVALID,
}
TITLE: Final = "The notification can not be made"


class Chain:
    """The chain about one wish while it grows."""

    def __init__(self, wish: Wish) -> None:
        self.wish = wish
        self.links: list[Decision] = [wish.origin]

    def add(self, decision: Decision) -> bool:
        """Add a link. False when it ends the chain."""
        self.links.append(decision)
        return decision.code not in ENDS

    def skipped(self, problem: Problem | None = None) -> Skipped:
        """What a chain that has ended comes to."""
        user_id = self.wish.target.user_id
        return Skipped(tuple(self.links), self.wish.channel, user_id, self.wish.origin.detail.get("rule"), problem)


def decide(wish: Wish, world: World, cap_times: CapTimes) -> tuple[list[Fate], CapTimes]:
    """What becomes of a wish, and the cap times that stand for it. ``cap_times`` go before those of the user."""
    chain = Chain(wish)
    target, user = wish.target, None
    if target.user_id is not None:
        user = world.users.get(target.user_id)
        if user is None and not target.addresses:
            chain.add(decided(Code.RECIPIENT_UNKNOWN))
            return [chain.skipped()], {}
    candidates = _candidates(wish, user, world)
    if isinstance(candidates, Decision):
        chain.add(candidates)
        return [chain.skipped()], {}
    given = wish.channel in target.addresses
    chain.add(decided(Code.RECIPIENT_GIVEN if given else Code.RECIPIENT_OF_USER))
    preference = allowed(user, wish.topic, wish.channel)
    if not chain.add(decided(preference, topic=None if wish.topic is None else wish.topic.name)):
        return [chain.skipped()], {}
    ways = [_way(wish, each, world) for each in candidates]
    usable = [way for way in ways if way.contact.code not in ENDS and way.provider.code not in ENDS]
    if not usable:
        if chain.add(ways[0].contact):
            chain.add(ways[0].provider)
        return [chain.skipped()], {}
    usable = usable[:POINTS_MAX] if wish.every_point else usable[:1]
    chain.add(usable[0].contact)
    chain.add(usable[0].provider)
    zone = _zone(user, wish, world)
    rendered = _words(chain, user, zone, world)
    if isinstance(rendered, Skipped):
        return [rendered], {}
    template_id, locale, payload = rendered
    if wish.digest_s is not None and user is not None:
        due_at_s = world.now_unix_s + wish.digest_s
        chain.add(decided(Code.TIME_DIGEST, due_at=due_at_s))
        return [Gathered(tuple(chain.links), wish.channel, user.id, due_at_s)], {}
    critical = wish.topic is not None and wish.topic.critical
    quiet = None
    if wish.is_considerate:
        quiet = (user.quiet_hours if user is not None else None) or world.setup.policy.quiet_hours
    found, send_at_s, expires_at_s = moment_of(wish.timing, world.now_unix_s, zone, quiet, critical=critical)
    for decision in found:
        if not chain.add(decision):
            return [chain.skipped()], {}
    at_s = world.now_unix_s if send_at_s is None else send_at_s
    uses = _caps(chain, user, at_s, world, cap_times)
    if uses is None:
        return [chain.skipped()], {}
    fates: list[Fate] = [
        Planned(
            (*(chain.links if way is usable[0] else _with_way(chain.links, way)), _rate(way)),
            wish.channel,
            way.recipient,
            target.user_id,
            _mail(payload, wish, user, way, locale, world) if wish.channel is Channel.EMAIL else payload,
            template_id,
            locale,
            None if wish.topic is None else wish.topic.name,
            wish.lane,
            send_at_s,
            expires_at_s,
            tuple(use for use, _ in uses),
            None if send_at_s is None else _again(wish, user, way),
            wish.ignores_suppression,
            wish.origin.detail.get("rule"),
            _key(wish, way),
        )
        for way in usable
    ]
    return fates, {(use.user_id, use.cap): times for use, times in uses}


# --- recipient, contact, provider


def _candidates(wish: Wish, user: User | None, world: World) -> Sequence[ContactPoint] | Decision:
    """The addresses to try, as contact points; or why there is none. What is no user's has a point without an id."""
    address = wish.target.addresses.get(wish.channel)
    if address is not None:
        status = world.statuses.get((wish.channel, address), ContactStatus.ACTIVE)
        return [ContactPoint("", wish.channel, address, status)]
    if user is None:
        return decided(Code.RECIPIENT_NO_CONTACT_POINT)
    points = [point for point in user.points if point.channel is wish.channel]
    alive = [point for point in points if point.expires_at_s is None or point.expires_at_s > world.now_unix_s]
    if not alive:
        return decided(Code.RECIPIENT_EXPIRED if points else Code.RECIPIENT_NO_CONTACT_POINT)
    return alive


def _way(wish: Wish, point: ContactPoint, world: World) -> Way:
    code = _CONTACT_CODES[point.status]
    if wish.ignores_suppression and point.status in IGNORABLE:
        code = Code.CONTACT_IGNORED
    contact = decided(code, contact_point=point.id or None)
    if not serves(world.lanes, wish.channel, point.recipient):
        return Way(point.recipient, point.id or None, contact, decided(Code.PROVIDER_NONE, channel=wish.channel.value))
    part = lane_of(wish.channel, audience_of(wish.channel, point.recipient))
    lane = part if part in world.lanes else wish.channel.value
    return Way(point.recipient, point.id or None, contact, decided(Code.PROVIDER_CONFIGURED, lane=lane), world.lanes[lane])


def _with_way(links: Sequence[Decision], way: Way) -> list[Decision]:
    """The chain as it is for another of several devices."""
    mine = {Step.CONTACT: way.contact, Step.PROVIDER: way.provider}
    return [mine.get(link.step, link) for link in links]


def _rate(way: Way) -> Decision:
    return decided(Code.RATE_LIMITED if way.is_limited else Code.RATE_UNLIMITED)


# --- locale, template


def _words(
    chain: Chain, user: User | None, zone: str, world: World
) -> tuple[str | None, str | None, Mapping[str, Any]] | Skipped:
    """Template, locale and rendered payload."""
    wish = chain.wish
    requested = wish.target.locale or (None if user is None else user.locale) or wish.locale
    if wish.template is None:
        assert wish.content is not None
        chain.add(decided(Code.TEMPLATE_CONTENT))
        return None, None, wish.content
    found: TemplateSet | None = world.templates.get((wish.template, wish.channel))
    if found is None:
        chain.add(decided(Code.TEMPLATE_NONE, template=wish.template))
        return chain.skipped()
    default = world.setup.default_locale
    chosen = found.choose(requested, default)
    chain.add(decided(chosen.code, locale=chosen.locale, requested=requested))
    template = chosen.template
    if wish.refusal:
        chain.add(decided(Code.TEMPLATE_FAILED, template=wish.template, **wish.refusal))
        told = Problem(
            422, str(wish.refusal.get("error")), TITLE, "An expression of it can not be evaluated for this.", wish.pointer
        )
        return chain.skipped(_named(wish, told))
    messages = messages_for(world.setup.catalogues, requested, default) if world.setup.catalogues else None
    localization = Localization(requested or chosen.locale, zone, messages)
    try:
        payload: Mapping[str, Any] = template.render_payload(wish.variables, localization)
    except TemplateError as error:
        missing = f"/{escape_pointer(error.name)}" if isinstance(error, MissingVariable) and error.name else ""
        names = {"template": template.name, "locale": chosen.locale, "error": error.code, "part": error.part, "name": error.name}
        chain.add(decided(Code.TEMPLATE_FAILED, **names))
        return chain.skipped(_named(wish, error.problem(wish.pointer + missing)))
    faults = extras_faults(wish.extras)
    size_bytes = payload_size(payload) + size_of(wish.extras)
    if faults or size_bytes > world.item_bytes_max:
        code = "attachments_invalid" if faults else "item_too_large"
        chain.add(decided(Code.TEMPLATE_FAILED, template=template.name, error=code))
        size = f"It has {size_bytes} bytes; {world.item_bytes_max} is the most."
        told = Problem(422, code, TITLE, f"{faults[0][0]} {faults[0][1]}." if faults else size, wish.pointer)
        return chain.skipped(_named(wish, told))
    chain.add(decided(Code.TEMPLATE_USED, template=template.name, version=template.version, locale=chosen.locale))
    return template.template_id, template.locale, payload


def _named(wish: Wish, problem: Problem) -> Problem:
    """The problem of a message that can not be made, with what it is about."""
    rule = wish.origin.detail.get("rule")
    about = f"template {wish.template} ({wish.channel.value}): "
    return evolve(problem, title=TITLE, detail=(f"Rule {rule}, " if rule is not None else "") + about + problem.detail)


def size_of(value: Any) -> int:
    """Bytes of the texts in a payload, or in what a mail has beside its words, about."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(map(size_of, value.values()))
    return sum(map(size_of, value)) if isinstance(value, list) else 0


def _mail(
    payload: Mapping[str, Any], wish: Wish, user: User | None, way: Way, locale: str | None, world: World
) -> Mapping[str, Any]:
    """The payload with what a mail has beside its words."""
    extras = dict(wish.extras)
    if world.links is not None and wish.topic is not None and not wish.topic.critical and "headers" not in payload:
        who: dict[str, Any] = {"user_id": user.id} if user is not None else {"address": address_of(wish.channel, way.recipient)}
        link = Unsubscription(
            world.organization_id, wish.channel, wish.topic.name, **who, issued_at_s=int(world.now_unix_s), locale=locale
        )
        headers = unsubscribe_headers(world.links.url(link))
        if headers:
            extras["headers"] = dict(headers)
    return {**payload, **extras} if extras else payload


# --- time, caps


def _zone(user: User | None, wish: Wish, world: World) -> str:
    return wish.target.time_zone or (None if user is None else user.time_zone) or world.setup.policy.time_zone


def _caps(
    chain: Chain, user: User | None, at_s: float, world: World, cap_times: CapTimes
) -> list[tuple[CapUse, tuple[float, ...]]] | None:
    """What counts it, with the times it then counts; None when one of them has had enough."""
    wish = chain.wish
    policy = world.setup.policy
    if wish.topic is not None and wish.topic.critical:
        chain.add(decided(Code.CAP_CRITICAL if policy.caps and user is not None else Code.CAP_NONE))
        return []
    caps = caps_for(policy, wish.topic, wish.channel) if user is not None and wish.is_considerate else ()
    uses = []
    for cap in caps:
        assert user is not None
        known = cap_times.get((user.id, cap.name))
        times_s = user.cap_times_s.get(cap.name, ()) if known is None else known
        if not within(times_s, at_s, cap):
            chain.add(decided(Code.CAP_REACHED, cap=cap.name))
            return None
        # One message, however many of the person's devices show it.
        uses.append((CapUse.of(user.id, cap, at_s, wish.once), counted(times_s, at_s, cap)))
    chain.add(decided(Code.CAP_WITHIN, caps=[use.cap for use, _ in uses]) if uses else decided(Code.CAP_NONE))
    return uses


def _again(wish: Wish, user: User | None, way: Way) -> Mapping[str, Any] | None:
    """What is to be asked again when it is due: see ``asking_again``. None for what nothing can have changed about."""
    if user is None and wish.topic is None and not wish.is_considerate:
        return None
    return remembered(wish, way.point_id)


def _key(wish: Wish, way: Way) -> bytes:
    """What tells it from the other notifications of its event: the rule, whom, and by what."""
    who = wish.target.user_id or ""
    address = address_of(wish.channel, way.recipient).hex() if way.point_id is None or wish.every_point else ""
    named = "\0".join((str(wish.origin.detail.get("rule")), who, wish.channel.value, address))
    return blake2b(named.encode("utf-8", "surrogatepass"), digest_size=16).digest()
