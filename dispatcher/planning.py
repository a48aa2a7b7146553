"""From an event to what comes of it: rules in the order of their names, for each its recipients, for each of them its channels.

In two steps, because between them people and templates have to be read: :func:`match` asks which rules are for the event and whom
they name, :func:`plan` decides about each. Both are functions of their arguments alone, so a dry run is the same two calls with
nothing carried out. Invariant: of an event in which one template can not be rendered nothing is planned, so that its producer
hears of it while nothing is lost.

Each exists with pauses, too, because one event may meet a thousand rules and reach a thousand people: it yields before whatever
takes a moment, for whoever has others to serve.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from attrs import evolve, field, frozen

from dispatcher.acceptance import is_recipient, is_text
from dispatcher.conditions import ExpressionError
from dispatcher.deciding import decide, size_of
from dispatcher.decisions import Code, Decision, decided
from dispatcher.event_documents import variables_of
from dispatcher.events import Event
from dispatcher.locales import normalize
from dispatcher.model import Channel
from dispatcher.planned import CapTimes, Fate, Gathered, Plan, Planned, Skipped, Target, Timing, Wish, World
from dispatcher.problems import Problem
from dispatcher.rules import Mode, Recipients, Rule, Send
from dispatcher.setup import Setup
from dispatcher.subscriptions import normal_subscription
from dispatcher.topics import Topic
from dispatcher.zones import is_zone

TARGETS_MAX: Final = 1_000
"""People that one event may reach, over all its rules."""
BYTES_MAX: Final = 32 * 1024 * 1024
"""What may come of the events of one request, all messages together: a large one for a thousand people is a thousand of them.
It is in memory several times over until it is written down."""
DIGEST_ITEM: Final = "items"
"""What a template of a digest finds its events under, beside ``count``."""
KEY_CHARS_MAX: Final = 255

T = TypeVar("T")


@frozen
class Match:
    """What one rule says about an event. ``targets`` are whom it names, if it matches; several rules of one event may name the
    same person. ``faults`` are links about recipients that name nobody."""

    rule: Rule
    origin: Decision
    targets: tuple[Target, ...] = field(default=(), repr=False)
    faults: tuple[Decision, ...] = ()

    @property
    def is_match(self) -> bool:
        """Whether the rule is for the event."""
        return self.origin.code is Code.RULE_MATCHED


@frozen
class Needs:
    """What has to be known before an event is planned: users, templates by name and channel, and the status of addresses."""

    user_ids: frozenset[str] = field(repr=False)
    templates: frozenset[tuple[str, Channel]]
    addresses: frozenset[tuple[Channel, str]] = field(repr=False)


def match(event: Event, setup: Setup) -> Sequence[Match]:
    """The rules for events of this type, each with what it says about this one."""
    return _at_once(match_in_steps(event, setup))


def match_in_steps(event: Event, setup: Setup) -> Generator[None, None, Sequence[Match]]:
    """The same, with a pause before every expression."""
    seen = variables_of(event)
    found = []
    for rule in setup.rules_for(event.type):
        yield
        code, detail = _condition(rule, seen)
        origin = decided(code, rule=rule.name, error=detail)
        if code is Code.RULE_MATCHED:
            targets, faults = yield from _targets(rule, seen, event.locale)
            found.append(Match(rule, origin, targets, faults))
        else:
            found.append(Match(rule, origin))
    return found


def needs_of(matches: Sequence[Match]) -> Needs:
    """What :func:`plan` has to be told for these."""
    matching = [match for match in matches if match.is_match]
    targets = [target for match in matching for target in match.targets]
    return Needs(
        frozenset(target.user_id for target in targets if target.user_id is not None),
        frozenset((send.template, send.channel) for match in matching for send in match.rule.sends),
        frozenset(pair for target in targets for pair in target.addresses.items()),
    )


def too_many(matches: Sequence[Match]) -> bool:
    """Whether an event is refused because of how many people it names: nothing need be read for it."""
    return sum(len(match.targets) for match in matches) > TARGETS_MAX


def plan(event: Event, matches: Sequence[Match], world: World, cap_times: CapTimes) -> Plan:
    """All that comes of an event. ``cap_times`` are of what was planned before, in the same moment."""
    return _at_once(plan_in_steps(event, matches, world, cap_times))


def plan_in_steps(
    event: Event, matches: Sequence[Match], world: World, cap_times: CapTimes, bytes_max: int = BYTES_MAX
) -> Generator[None, None, Plan]:
    """The same, with a pause before every expression and every message. Of more than ``bytes_max`` nothing is planned."""
    if not matches:
        return Plan([Skipped((decided(Code.RULE_NONE),))], (), Code.RULE_NONE)
    fates: list[Fate] = []
    times = dict(cap_times)
    taken: dict[tuple[str, str], tuple[float, ...]] = {}
    size_bytes, data_bytes = 0, size_of(event.data)
    if too_many(matches):
        return Plan((), (), problem=_TOO_MANY)
    for one in matches:
        rule = one.rule
        if not one.is_match:
            fates.append(Skipped((one.origin,), rule=rule.name))
            continue
        fates.extend(Skipped((one.origin, fault), rule=rule.name) for fault in one.faults)
        words = yield from _words(one.rule, event)
        planner = _Rule(event, one, world, words)
        for target in one.targets:
            for fate, used in planner.for_target(target, times):
                yield
                fates.append(fate)
                size_bytes += size_of(fate.payload) if isinstance(fate, Planned) else 0
                size_bytes += data_bytes if isinstance(fate, Gathered) else 0
                if size_bytes > bytes_max:
                    return Plan((), (), problem=_TOO_LARGE)
                times.update(used)
                taken.update(used)
    matched = [one.rule.name for one in matches if one.is_match]
    problems = [fate.problem for fate in fates if isinstance(fate, Skipped) and fate.problem is not None]
    if problems:
        first = problems[0]
        problem = first if len(problems) == 1 else evolve(first, errors=tuple(problems[:_PROBLEMS_MAX]))
        return Plan(fates, matched, problem=problem)
    codes = {one.origin.code for one in matches}
    reason = None
    if not matched:
        reason = Code.RULE_CONDITION_FALSE if Code.RULE_CONDITION_FALSE in codes else Code.RULE_DISABLED
    return Plan(fates, matched, reason, None, taken, size_bytes)


def topic_named(setup: Setup, name: str | None) -> Topic | None:
    """The topic of that name; one that is not set up is like any, so that preferences about it hold."""
    if name is None:
        return None
    return setup.topics.get(name) or Topic(name)


def digest_wish(rule: Rule, send: Send, user_id: str, topic: Topic | None, variables: Mapping[str, Any]) -> Wish:
    """What is wished for when a digest is due: the message about all its events, at once or when person and window allow."""
    origin = decided(Code.RULE_MATCHED, rule=rule.name)
    timing = Timing(window=rule.window, expires_in_s=rule.expires_in_s)
    return Wish(
        origin, Target(user_id), send.channel, send.template, variables=variables, topic=topic, lane=rule.lane, timing=timing
    )


def digest_variables(rule: Rule, send: Send, data: Sequence[Mapping[str, Any]], count: int) -> Mapping[str, Any]:
    """What a digest's template sees: the last event's data, ``items`` with ``data``, and the ``count`` of all its events, which
    may be more.
    """
    last = data[-1] if data else {}
    computed = {name: expression.value({"data": last, "event": {}}) for name, expression in send.variables.items()}
    return {**last, **computed, DIGEST_ITEM: list(data), "count": count}


class Words(NamedTuple):
    """Variables and extras of a message, and why they can not be had."""

    variables: Mapping[str, Any]
    extras: Mapping[str, Any]
    refusal: Mapping[str, Any]


class _Rule:
    """One matching rule of one event: what is the same for everybody it names."""

    def __init__(self, event: Event, match: Match, world: World, words: Sequence[Words]) -> None:
        rule = match.rule
        self._rule = rule
        self._origin = match.origin
        self._world = world
        self._locale = event.locale
        self._once = f"{event.id} {rule.name}"
        seen = variables_of(event)
        self._topic = topic_named(world.setup, rule.topic)
        date = None
        if rule.at is not None:
            date = _value(rule.at.date, seen)
        self._timing = Timing(rule.delay_s, None, rule.at, date, rule.window, rule.expires_in_s)
        self._words = words
        key = None if rule.digest is None or rule.digest.key is None else _value(rule.digest.key, seen)
        self._key = "" if key is None else str(key)[:KEY_CHARS_MAX].replace("\x00", "")

    def for_target(self, target: Target, cap_times: CapTimes) -> Iterator[tuple[Fate, CapTimes]]:
        """What becomes of each of the rule's channels for one of those it names."""
        rule, world = self._rule, self._world
        if target.user_id is not None and target.user_id not in world.users:
            yield Skipped((self._origin, decided(Code.RECIPIENT_UNKNOWN)), None, target.user_id, rule.name), {}
            return
        reached = False
        for send, (variables, extras, refusal) in zip(rule.sends, self._words, strict=True):
            if reached and rule.mode is Mode.FIRST:
                chain = (self._origin, decided(Code.RECIPIENT_NOT_NEEDED))
                yield Skipped(chain, send.channel, target.user_id, rule.name), {}
                continue
            wish = Wish(
                self._origin,
                target,
                send.channel,
                send.template,
                None,
                variables,
                extras,
                self._topic,
                rule.lane,
                self._timing,
                self._locale,
                every_point=send.channel is Channel.PUSH,
                digest_s=None if rule.digest is None else rule.digest.window_s,
                once=f"{self._once} {send.channel.value} {target.user_id}" if send.channel is Channel.PUSH else "",
                refusal=refusal,
            )
            fates, used = decide(wish, world, cap_times)
            for fate in fates:
                reached = reached or not isinstance(fate, Skipped)
                if isinstance(fate, Gathered):
                    fate = evolve(fate, rule=rule.name, key=self._key)
                yield fate, used


def _words(rule: Rule, event: Event) -> Generator[None, None, Sequence[Words]]:
    """What the messages of a rule's channels are made of: the same for everybody it names."""
    seen = variables_of(event)
    found = []
    for send in rule.sends:
        computed: dict[str, Any] = {}
        extras: Mapping[str, Any] = {}
        try:
            for name, expression in send.variables.items():
                yield
                computed[name] = expression.value(seen)
            if send.attachments is not None:
                yield
                attachments = send.attachments.value(seen)
                extras = {} if attachments is None or attachments == [] else {"attachments": attachments}
        except ExpressionError as error:
            found.append(Words(event.data, {}, {"error": error.code}))
            continue
        variables = {**event.data, **computed} if computed else event.data
        if rule.digest is not None:
            variables = {**variables, DIGEST_ITEM: [event.data], "count": 1}
        found.append(Words(variables, extras, {}))
    return found


def _condition(rule: Rule, seen: Mapping[str, Any]) -> tuple[Code, str | None]:
    if not rule.enabled:
        return Code.RULE_DISABLED, None
    if rule.when is None:
        return Code.RULE_MATCHED, None
    try:
        return (Code.RULE_MATCHED if rule.when.holds(seen) else Code.RULE_CONDITION_FALSE), None
    except ExpressionError as error:
        return Code.RULE_CONDITION_FALSE, error.code


def _targets(
    rule: Rule, seen: Mapping[str, Any], locale: str | None
) -> Generator[None, None, tuple[tuple[Target, ...], tuple[Decision, ...]]]:
    """Whom a rule names, nobody twice; and a link for each of its recipients that names nobody."""
    users: dict[str, Target] = {}
    contacts: list[Target] = []
    faults: list[Decision] = []
    for number, recipients in enumerate(rule.recipients):
        yield
        user_ids = list(recipients.user_ids)
        try:
            if recipients.user is not None:
                value = recipients.user.value(seen)
                user_ids.extend(_user_ids(value))
            if recipients.contact:
                contact = _contact(recipients, seen, locale)
                if contact is not None and contact not in contacts:
                    contacts.append(contact)
                if contact is None:
                    faults.append(decided(Code.RECIPIENT_UNKNOWN, recipient=number))
            elif not user_ids:
                faults.append(decided(Code.RECIPIENT_UNKNOWN, recipient=number))
        except ExpressionError as error:
            faults.append(decided(Code.RECIPIENT_UNKNOWN, recipient=number, error=error.code))
        for user_id in user_ids:
            users.setdefault(user_id, Target(user_id))
    return (*users.values(), *contacts), tuple(faults)


def _user_ids(value: Any) -> list[str]:
    """The ids an expression gives; numbers are read as such."""
    values = value if isinstance(value, list) else [value]
    ids = [str(one) if isinstance(one, int) and not isinstance(one, bool) else one for one in values]
    return [id for id in ids if is_text(id, 255)]


def _contact(recipients: Recipients, seen: Mapping[str, Any], locale: str | None) -> Target | None:
    addresses = {}
    for channel, expression in recipients.contact.items():
        address = expression.value(seen)
        if is_recipient(address, channel):
            addresses[channel] = normal_subscription(address) if channel is Channel.PUSH else address
    if not addresses:
        return None
    wanted = None if recipients.locale is None else recipients.locale.value(seen)
    zone = None if recipients.time_zone is None else recipients.time_zone.value(seen)
    tag = normalize(wanted) if isinstance(wanted, str) else None
    return Target(None, addresses, tag or locale, zone if is_zone(zone) else None)


def _value(expression: Any, seen: Mapping[str, Any]) -> Any:
    """What an expression gives; None where it can not be evaluated for this event."""
    try:
        return expression.value(seen)
    except ExpressionError:
        return None


def _at_once(steps: Generator[None, None, T]) -> T:
    """What a generator returns, without its pauses."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            value: T = end.value
            return value


_PROBLEMS_MAX: Final = 20
_TOO_MANY: Final = Problem(
    422,
    "recipients_too_many",
    "The event can not be taken in",
    f"Its rules name more than {TARGETS_MAX} people; hand it in in parts.",
    "",
)
_TOO_LARGE: Final = Problem(
    413,
    "notifications_too_large",
    "The event can not be taken in",
    f"What comes of the events of a request may have {BYTES_MAX >> 20} MiB; hand it in for fewer people, or with fewer others.",
    "",
)
__all__ = [
    "BYTES_MAX",
    "Match",
    "Needs",
    "Plan",
    "Planned",
    "digest_variables",
    "digest_wish",
    "match",
    "match_in_steps",
    "needs_of",
    "plan",
    "plan_in_steps",
    "too_many",
    "topic_named",
]
