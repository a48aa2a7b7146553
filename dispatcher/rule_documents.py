"""Reading a rule from its JSON document, with every fault of it named at once, and giving the document back.

    {"event": "ticketing.purchase.completed", "when": "data.total.amount > 0", "topic": "purchases",
     "recipients": [{"user": "data.buyer_id"}], "send": [{"channel": "email", "template": "purchase"}]}

All fields are in docs/rules.md. Invariant: a rule that comes out of here has somebody to send to and something to send, each of
its expressions compiles, and no two of its fields contradict each other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from dispatcher.conditions import LENGTH_MAX, Expression, ExpressionError, compile_expression
from dispatcher.documents import Faults, Fields, pointer_to
from dispatcher.model import Channel
from dispatcher.problems import Problem, Refused
from dispatcher.rules import Digest, LaneName, Mode, Recipients, Relative, Rule, Send, Window
from dispatcher.spans import read_span

DAY_S: Final = 86_400
DELAY_MAX_S: Final = 366 * DAY_S
"""How far a delay, an offset or an expiry may reach."""
DIGEST_MIN_S: Final = 60
DIGEST_MAX_S: Final = 31 * DAY_S
RECIPIENTS_MAX: Final = 20
USER_IDS_MAX: Final = 100
VARIABLES_MAX: Final = 50
EVENT_TYPE_LENGTH_MAX: Final = 255
EVENT_TYPE_RULE: Final = "names of letters, digits, _ and - with dots between them"

_EVENT_TYPE = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_NAME_RULE = "1 to 64 of a-z, 0-9, dot, hyphen and underscore, beginning with a letter or digit"
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}", re.ASCII)


def is_event_type(value: Any) -> bool:
    """Whether an event can be of this type."""
    return isinstance(value, str) and len(value) <= EVENT_TYPE_LENGTH_MAX and _EVENT_TYPE.fullmatch(value) is not None


def parse_rule(name: str, body: Mapping[str, Any]) -> Rule | Problem:
    """The rule that a document describes; or every fault of it, with pointers into it."""
    faults = Faults()
    rule = _Reader(faults).rule(name, body)
    try:
        faults.refuse_if_any()
    except Refused as refused:
        return refused.problem
    return rule


class _Reader:
    """One reading. What it returns after a fault was noted is of no use to anybody."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults

    def rule(self, name: str, body: Mapping[str, Any]) -> Rule:
        fields = Fields(body, self._faults)
        if _NAME.fullmatch(name) is None:
            self._fault("", f"The name of a rule has {_NAME_RULE}.", "name_invalid")
        topic = fields.optional_text("topic", 64)
        if topic is not None and _NAME.fullmatch(topic) is None:
            self._fault("/topic", f"The name of a topic has {_NAME_RULE}.")
        rule = Rule(
            name,
            self._event_type(fields),
            tuple(self._recipients(fields)),
            tuple(self._sends(fields)),
            self._expression(fields, "", "when"),
            topic,
            LaneName.TRANSACTIONAL if fields.value("lane") is None else fields.choice("lane", LaneName),
            Mode.ALL if fields.value("mode") is None else fields.choice("mode", Mode),
            self._seconds(fields, "", "delay_s", 0, DELAY_MAX_S) or 0.0,
            self._relative(fields),
            self._window(fields),
            self._digest(fields),
            self._seconds(fields, "", "expires_in_s", 1, DELAY_MAX_S),
            fields.boolean("enabled", True),
            body,
        )
        fields.finish()
        self._contradictions_in_time(body)
        if not self._faults:
            self._contradictions_in_channels(rule)
        return rule

    def _event_type(self, fields: Fields) -> str:
        found = fields.text("event", EVENT_TYPE_LENGTH_MAX)
        if found and not is_event_type(found.removesuffix(".*")):
            self._fault("/event", f"This must be {EVENT_TYPE_RULE}; the last may be *, for all that begin like it.")
        return found

    def _recipients(self, fields: Fields) -> Iterator[Recipients]:
        for pointer, one in self._objects(fields, "", "recipients", RECIPIENTS_MAX):
            inner = Fields(one, self._faults, pointer)
            contact: dict[Channel, Expression] = {}
            addresses = inner.optional_mapping("contact", len(Channel)) or {}
            if one.get("contact") == {}:
                self._fault(f"{pointer}/contact", "This must name at least one channel.")
            reached = Fields(addresses, self._faults, f"{pointer}/contact")
            for channel in Channel:
                address = self._expression(reached, f"{pointer}/contact", channel.value)
                if channel is Channel.PUSH and channel.value in addresses:
                    self._fault(f"{pointer}/contact/push", "Push tokens belong to users: they can not be given by a contact.")
                elif address is not None:
                    contact[channel] = address
            reached.finish()
            yield Recipients(
                self._expression(inner, pointer, "user"),
                self._user_ids(inner, pointer),
                contact,
                locale := self._expression(inner, pointer, "locale"),
                zone := self._expression(inner, pointer, "time_zone"),
            )
            inner.finish()
            if sum(one.get(name) is not None for name in ("user", "user_ids", "contact")) != 1:
                self._fault(pointer, 'This needs exactly one of "user", "user_ids" and "contact".', "recipient_missing")
            elif "contact" not in one and (locale is not None or zone is not None):
                self._fault(pointer, "A user has a locale and a time zone already; only a contact can be given them.")

    def _user_ids(self, fields: Fields, pointer: str) -> tuple[str, ...]:
        value = fields.value("user_ids")
        if value is None:
            return ()
        if not isinstance(value, list) or not 1 <= len(value) <= USER_IDS_MAX:
            self._fault(f"{pointer}/user_ids", f"This must be a list of 1 to {USER_IDS_MAX} user ids.")
            return ()
        for index, one in enumerate(value):
            if not (isinstance(one, str) and 1 <= len(one) <= 255 and one.isprintable()):
                self._fault(f"{pointer}/user_ids/{index}", "This must have 1 to 255 visible characters.")
            elif one in value[:index]:
                self._fault(f"{pointer}/user_ids/{index}", "This user is in the list already.")
        return tuple(map(str, value))

    def _sends(self, fields: Fields) -> Iterator[Send]:
        seen: list[Any] = []
        for pointer, one in self._objects(fields, "", "send", len(Channel)):
            inner = Fields(one, self._faults, pointer)
            channel = inner.choice("channel", Channel)
            if channel in seen and one.get("channel") == channel:
                self._fault(f"{pointer}/channel", "The rule sends by this channel already.")
            seen.append(one.get("channel"))
            template = inner.text("template", 255)
            if not template.isprintable():
                self._fault(f"{pointer}/template", "This must have visible characters only.")
            variables = self._variables(inner, pointer)
            attachments = self._expression(inner, pointer, "attachments")
            if attachments is not None and one.get("channel") != Channel.EMAIL:
                self._fault(f"{pointer}/attachments", "Only an email has attachments.")
            inner.finish()
            yield Send(channel, template, variables, attachments)

    def _variables(self, fields: Fields, pointer: str) -> Mapping[str, Expression]:
        given = fields.optional_mapping("variables", VARIABLES_MAX) or {}
        inner = Fields(given, self._faults, f"{pointer}/variables")
        variables = {}
        for name in given:
            compiled = self._expression(inner, f"{pointer}/variables", name)
            if _VARIABLE.fullmatch(name) is None:
                self._fault(f"{pointer}/variables", "Names of variables have letters, digits and underscores, at most 64.")
            elif compiled is None and given[name] is None:
                self._fault(f"{pointer}/variables/{name}", "This field is required.", "field_missing")
            elif compiled is not None:
                variables[name] = compiled
        return variables

    def _relative(self, fields: Fields) -> Relative | None:
        given = fields.optional_mapping("at", 2)
        if given is None:
            return None
        inner = Fields(given, self._faults, "/at")
        date = self._expression(inner, "/at", "date", required=True)
        offset_s = self._seconds(inner, "/at", "offset_s", -DELAY_MAX_S, DELAY_MAX_S)
        inner.finish()
        return None if date is None else Relative(date, offset_s or 0.0)

    def _window(self, fields: Fields) -> Window | None:
        given = fields.value("window")
        if given is None:
            return None
        faults: list[Problem] = []
        written = read_span(given, "/window", faults)
        self._faults.extend(faults)
        return None if written is None else Window(*written)

    def _digest(self, fields: Fields) -> Digest | None:
        given = fields.optional_mapping("digest", 2)
        if given is None:
            return None
        inner = Fields(given, self._faults, "/digest")
        window_s = self._seconds(inner, "/digest", "window_s", DIGEST_MIN_S, DIGEST_MAX_S)
        if given.get("window_s") is None:
            self._fault("/digest/window_s", "This field is required.", "field_missing")
        key = self._expression(inner, "/digest", "key")
        inner.finish()
        return Digest(window_s or 0.0, key)

    def _contradictions_in_time(self, body: Mapping[str, Any]) -> None:
        """What can not be meant together, by the pointer of one of the two."""
        delayed = bool(body.get("delay_s"))
        if delayed and body.get("at") is not None:
            self._contradiction("/delay_s", "A rule has either a delay or a date that it is relative to.")
        if body.get("digest") is None:
            return
        if body.get("at") is not None:
            self._contradiction("/digest", "A digest is sent when its window ends, so it can not be relative to a date.")
        if delayed:
            self._contradiction("/digest", "A digest is sent when its window ends, so it has no delay.")
        if _any_has(body.get("recipients"), "contact"):
            self._contradiction("/digest", "Only users get digests, because what is gathered is gathered for somebody.")
        if _any_has(body.get("send"), "attachments"):
            self._contradiction("/digest", "A digest has no attachments: they would be those of one of its events.")

    def _contradictions_in_channels(self, rule: Rule) -> None:
        """Contacts that nothing is sent to, and channels that lead to nobody."""
        contacts = [recipients.contact for recipients in rule.recipients]
        sent = {send.channel for send in rule.sends}
        for index, contact in enumerate(contacts):
            for channel in sorted(contact.keys() - sent):
                self._contradiction(f"/recipients/{index}/contact/{channel}", "The rule sends nothing by this channel.")
        if all(contacts):
            for index, send in enumerate(rule.sends):
                if not any(send.channel in contact for contact in contacts):
                    self._contradiction(f"/send/{index}/channel", "Nobody of this rule's recipients has this channel.")

    def _objects(self, fields: Fields, pointer: str, name: str, count_max: int) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """The objects of a list that must be there, with their pointers."""
        value = fields.value(name)
        pointer = pointer_to(pointer, name)
        if value is None:
            self._fault(pointer, "This field is required.", "field_missing")
        elif not isinstance(value, list) or not 1 <= len(value) <= count_max:
            self._fault(pointer, f"This must be a list of 1 to {count_max} objects.")
        else:
            for index, one in enumerate(value):
                if isinstance(one, dict):
                    yield f"{pointer}/{index}", one
                else:
                    self._fault(f"{pointer}/{index}", "This must be an object.")

    def _expression(self, fields: Fields, pointer: str, name: str, *, required: bool = False) -> Expression | None:
        source = fields.text(name, LENGTH_MAX) if required else fields.optional_text(name, LENGTH_MAX)
        if not source or len(source) > LENGTH_MAX:
            return None
        try:
            return compile_expression(source)
        except ExpressionError as error:
            self._faults.extend([error.problem(pointer_to(pointer, name))])
            return None

    def _seconds(self, fields: Fields, pointer: str, name: str, at_least: float, at_most: float) -> float | None:
        value = fields.value(name)
        if value is None:
            return None
        if not isinstance(value, int | float) or isinstance(value, bool) or not at_least <= value <= at_most:
            self._fault(pointer_to(pointer, name), f"This must be a number of seconds from {at_least:.15g} to {at_most:.15g}.")
            return None
        return float(value)

    def _fault(self, pointer: str, detail: str, code: str = "field_invalid") -> None:
        self._faults.add(pointer, code, detail)

    def _contradiction(self, pointer: str, detail: str) -> None:
        self._faults.add(pointer, "rule_contradictory", detail)


def _any_has(objects: Any, name: str) -> bool:
    """Whether any object of a list has a value there."""
    return isinstance(objects, list) and any(isinstance(one, dict) and one.get(name) is not None for one in objects)
