"""What was handed in, checked: JSON to items, each with its own verdict.

A request is one notification object, or ``{"items": […]}`` with up to ``items_max`` unlike ones. A fault of the envelope
refuses the request; a fault of an item refuses that item and no other. Every fault of an item is reported at once, with a
pointer and never a value.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping, Sequence
from datetime import datetime
from hashlib import blake2b
from typing import Any

import orjson
from attrs import evolve, field, frozen

from dispatcher.locales import normalize
from dispatcher.mail_extras import extras_faults
from dispatcher.model import Channel
from dispatcher.problems import Problem, Refused
from dispatcher.subscriptions import normal_subscription, parse_subscription
from dispatcher.whatsapp import template_faults

HASH_BYTES = 16
STEP_ITEMS = 250
"""Items of a batch that are read in one go, some 2 ms."""
KEY_CHARS_MAX = 255
USER_ID_CHARS_MAX = 255
RECIPIENT_CHARS_MAX = 320
SEND_AT_MAX_S = 366 * 86_400
"""How far ahead something may be scheduled: a year and a day. Its words are fixed now, and words grow old."""

FIELDS = frozenset(
    {
        "channel", "recipient", "user_id", "template", "locale", "variables", "content", "idempotency_key", "expires_at",
        "fallback", "ignore_suppression", "send_at", "correlation_id", "topic",
    }
)  # fmt: skip
FALLBACKS_MAX = 3
FALLBACK_FIELDS = frozenset({"channel", "recipient", "template", "locale", "variables", "content"})
_INHERITED = ("user_id", "expires_at", "idempotency_key", "ignore_suppression", "send_at", "correlation_id")
"""What a fallback has of the notification it stands in for, beside variables and locale for its template."""
CONTENT_FIELDS: Mapping[Channel, frozenset[str]] = {
    Channel.EMAIL: frozenset({"subject", "text", "html", "headers", "attachments"}),
    Channel.SMS: frozenset({"text"}),
    Channel.PUSH: frozenset({"title", "text", "data"}),
    Channel.WHATSAPP: frozenset({"text", "template"}),
}
_OBJECTS = frozenset({"data", "template", "headers", "attachments"})
_EMAIL = re.compile(r"[^\s@<>()\[\]\\,;:\"\x00-\x1f\x7f]{1,64}@[^\s@<>()\[\]\\,;:\"\x00-\x1f\x7f]{1,255}")
_PHONE = re.compile(r"\+[1-9][0-9]{6,14}")
_TOPIC = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_VISIBLE = re.compile(r"[!-~]{1,255}")

Content = Mapping[str, Any]


@frozen
class Item:
    """One notification as it was handed in, valid in itself. Exactly one of ``template`` and ``content`` is given.

    ``recipient`` is empty where it goes to a contact point of the user.

    ``fallbacks`` stand in for it, the first that can, when its recipient is suppressed. ``ignores_suppression`` sends in spite
    of a bounce or an opt-out.

    ``request_hash`` identifies its content, whatever the order of its fields, so that a replay can be told from a conflict.
    """

    channel: Channel
    recipient: str = field(repr=False)
    user_id: str | None
    template: str | None
    locale: str | None
    variables: Mapping[str, Any] = field(repr=False)
    content: Content | None = field(repr=False)
    idempotency_key: str | None
    expires_at_s: float | None
    request_hash: bytes = field(repr=False)
    ignores_suppression: bool = False
    fallbacks: tuple[Item, ...] = field(default=(), repr=False)
    send_at_s: float | None = None
    correlation_id: str | None = field(default=None, repr=False)
    topic: str | None = None


@frozen
class HandedIn:
    """A whole request. ``items`` has one entry per item, in order: the item, or why it is refused."""

    is_batch: bool
    items: Sequence[Item | Problem]
    request_hash: bytes = field(repr=False)


@frozen
class AcceptLimits:
    """``items_max`` notifications in one batch, ``item_bytes_max`` bytes of one, as handed in and as rendered."""

    items_max: int
    item_bytes_max: int


def parse(body: bytes, limits: AcceptLimits) -> HandedIn:
    """Read a request body. Raises Refused when it is not JSON, or not an object of one of the two forms."""
    steps = parse_in_steps(body, limits)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            handed: HandedIn = end.value
            return handed


def parse_in_steps(body: bytes, limits: AcceptLimits) -> Generator[None, None, HandedIn]:
    """The same, with pauses: it yields before every STEP_ITEMS items of a long batch, for whoever has others to serve."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Refused(
            Problem(
                400, "json_invalid", "The body is not JSON", f"It stops being JSON at line {error.lineno}, column {error.colno}."
            )
        ) from None
    if not isinstance(document, dict):
        raise Refused(_invalid("", 'must be an object: one notification, or {"items": [...]}', "body_invalid"))
    if "items" not in document:
        return HandedIn(False, [parse_item(document, limits)], b"")
    rows = document["items"]
    if len(document) > 1:
        raise Refused(_invalid("", 'a batch has only the field "items"', "field_unknown"))
    if not isinstance(rows, list) or not rows:
        raise Refused(_invalid("/items", "must be a list of at least one notification", "field_invalid"))
    if len(rows) > limits.items_max:
        raise Refused(
            Problem(
                413,
                "batch_too_large",
                "Too many notifications in one batch",
                f"A batch holds at most {limits.items_max} items; this one has {len(rows)}. Send it in parts.",
                "/items",
            )
        )
    digest = blake2b(body, digest_size=HASH_BYTES).digest()
    items: list[Item | Problem] = []
    for first in range(0, len(rows), STEP_ITEMS):
        if len(rows) > STEP_ITEMS:
            yield  # before the first as well: reading a large body as JSON takes its time
        items.extend(parse_item(row, limits) for row in rows[first : first + STEP_ITEMS])
    return HandedIn(True, items, digest)


def parse_item(row: Any, limits: AcceptLimits) -> Item | Problem:
    """Check one notification. All its faults are in the problem that comes back, the first of them in front.

    Only what it is in itself is checked here, never what time it is or what is configured.
    """
    if not isinstance(row, dict):
        return _invalid("", "must be an object", "item_invalid")
    try:
        canonical = orjson.dumps(row, option=orjson.OPT_SORT_KEYS)
    except (orjson.JSONEncodeError, RecursionError):
        return _invalid("", "is nested too deeply", "item_invalid")
    if len(canonical) > limits.item_bytes_max:
        return too_large(len(canonical), limits)
    get = row.get
    name = get("channel")
    channel = _CHANNELS.get(name) if isinstance(name, str) else None
    faults: list[Problem] = []
    if channel is None:
        faults.append(_invalid("/channel", f"must be one of {', '.join(Channel)}"))
    recipient = get("recipient")
    if recipient is None and get("user_id") is not None:
        recipient = ""
    elif not is_recipient(recipient, channel):
        faults.append(_invalid("/recipient", _RECIPIENT_RULES.get(channel, "must be a text")))
    user_id, template, locale, content = get("user_id"), get("template"), get("locale"), get("content")
    if user_id is not None and not _is_text(user_id, USER_ID_CHARS_MAX):
        faults.append(_invalid("/user_id", f"must be a text of 1 to {USER_ID_CHARS_MAX} characters"))
    if template is not None and not _is_text(template, 255):
        faults.append(_invalid("/template", "must be the name of a template"))
    normal_locale = normalize(locale) if isinstance(locale, str) else None
    if locale is not None and normal_locale is None:
        faults.append(_invalid("/locale", "must be a BCP 47 language tag such as pt-BR"))
    variables = get("variables")
    if variables is not None and not isinstance(variables, dict):
        faults.append(_invalid("/variables", "must be an object"))
    if (template is None) == (content is None):
        faults.append(_invalid("", 'needs exactly one of "template" and "content"', "content_missing"))
    elif content is not None:
        faults.extend(_content_faults(content, channel))
        if variables is not None or locale is not None:
            faults.append(_invalid("/content", "goes without variables and locale: it is sent as it is"))
    key = get("idempotency_key")
    if key is not None and not (isinstance(key, str) and _VISIBLE.fullmatch(key)):
        faults.append(_invalid("/idempotency_key", f"must be 1 to {KEY_CHARS_MAX} visible ASCII characters"))
    expires_at_s = None
    if get("expires_at") is not None:
        expires_at_s = instant(row["expires_at"])
        if expires_at_s is None:
            faults.append(_invalid("/expires_at", "must be an RFC 3339 time with a zone, such as 2026-01-31T12:00:00Z"))
    send_at_s = None
    if get("send_at") is not None:
        send_at_s = instant(row["send_at"])
        if send_at_s is None:
            faults.append(_invalid("/send_at", "must be an RFC 3339 time with a zone, such as 2026-01-31T12:00:00Z"))
        elif expires_at_s is not None and expires_at_s <= send_at_s:
            faults.append(_invalid("/expires_at", "must be after send_at"))
    correlation_id = get("correlation_id")
    if correlation_id is not None and not (isinstance(correlation_id, str) and _VISIBLE.fullmatch(correlation_id)):
        faults.append(_invalid("/correlation_id", f"must be 1 to {KEY_CHARS_MAX} visible ASCII characters"))
    if not isinstance(get("ignore_suppression", False), bool):
        faults.append(_invalid("/ignore_suppression", "must be true or false"))
    topic = get("topic")
    if topic is not None and not (isinstance(topic, str) and _TOPIC.fullmatch(topic)):
        faults.append(_invalid("/topic", "must be the name of a topic"))
    fallbacks = _fallbacks(row, limits, faults) if "fallback" in row else ()
    if fallbacks and (topic is not None or not recipient):
        faults.append(_invalid("/fallback", "goes with a recipient and without a topic: rules have several channels"))
    if not row.keys() <= FIELDS:
        faults.append(_invalid("", f"has an unknown field; known are {', '.join(sorted(FIELDS))}", "field_unknown"))
    if faults:
        return together(faults)
    assert channel is not None
    assert isinstance(recipient, str)
    return Item(
        channel,
        normal_subscription(recipient) if channel is Channel.PUSH and recipient else recipient,
        user_id,
        template,
        normal_locale,
        variables or {},
        content,
        key,
        expires_at_s,
        digest := blake2b(canonical, digest_size=HASH_BYTES).digest(),
        get("ignore_suppression", False),
        tuple(evolve(fallback, request_hash=digest) for fallback in fallbacks),
        send_at_s,
        correlation_id,
        topic,
    )


def is_decided_about(item: Item) -> bool:
    """Whether people and set-up have to be asked: it is for a user, wherever they are reached, or about a topic."""
    return item.topic is not None or not item.recipient


def _fallbacks(row: Mapping[str, Any], limits: AcceptLimits, faults: list[Problem]) -> list[Item]:
    """What stands in for a notification whose recipient is suppressed."""
    given = row["fallback"]
    if not isinstance(given, list) or not 1 <= len(given) <= FALLBACKS_MAX:
        faults.append(_invalid("/fallback", f"must be a list of 1 to {FALLBACKS_MAX} objects"))
        return []
    found: list[Item] = []
    for index, one in enumerate(given):
        parsed: Item | Problem
        if not isinstance(one, dict) or not one.keys() <= FALLBACK_FIELDS:
            parsed = _invalid("", f"must be an object of these fields: {', '.join(sorted(FALLBACK_FIELDS))}", "field_unknown")
        else:
            names = (*_INHERITED, "variables", "locale") if "template" in one else _INHERITED
            parsed = parse_item({**{name: row[name] for name in names if name in row}, **one}, limits)
        if isinstance(parsed, Problem):
            faults.append(parsed.below(f"/fallback/{index}"))
        else:
            found.append(parsed)
    return found


def expired(item: Item, now_unix_s: float) -> Problem | None:
    """Why an item that has outlived its ``expires_at`` is refused. Asked apart: a replay of it is a replay all the same."""
    if item.expires_at_s is None or item.expires_at_s > now_unix_s:
        return None
    return _invalid("/expires_at", "lies in the past", "already_expired")


def too_far(item: Item, now_unix_s: float) -> Problem | None:
    """Why an item that is to be sent too far in the future is refused. Asked apart, as whether it has expired."""
    if item.send_at_s is None or item.send_at_s <= now_unix_s + SEND_AT_MAX_S:
        return None
    return _invalid("/send_at", f"must be within {SEND_AT_MAX_S // 86_400} days from now", "send_at_too_far")


def waits(item: Item, now_unix_s: float) -> bool:
    """Whether it is for later. A time that has passed is now."""
    return item.send_at_s is not None and item.send_at_s > now_unix_s


def together(faults: Sequence[Problem]) -> Problem:
    """One problem out of several: the first, with the rest beside it."""
    first = faults[0]
    if len(faults) == 1:
        return first
    return Problem(first.status, first.code, first.title, first.detail, first.pointer, errors=tuple(faults))


def too_large(size_bytes: int, limits: AcceptLimits) -> Problem:
    """The problem of a notification above ``item_bytes_max``."""
    return Problem(
        413,
        "item_too_large",
        "The notification is too large",
        f"It has {size_bytes} bytes; {limits.item_bytes_max} is the most.",
        "",
    )


def _invalid(pointer: str, detail: str, code: str = "field_invalid") -> Problem:
    return Problem(422, code, "The notification can not be accepted", detail, pointer)


_CHANNELS = {channel.value: channel for channel in Channel}
_RECIPIENT_RULES: Mapping[Channel | None, str] = {
    Channel.EMAIL: "must be one email address without a display name",
    Channel.SMS: "must be a phone number in E.164 form, such as +15551234567",
    Channel.WHATSAPP: "must be a phone number in E.164 form, such as +15551234567",
    Channel.PUSH: "must be a push token, or the JSON text of a Web Push subscription with endpoint, p256dh and auth",
}


def recipient_rule_broken(value: str, channel: Channel) -> str | None:
    """What a recipient must be on this channel, if this is none."""
    return None if is_recipient(value, channel) else _RECIPIENT_RULES[channel]


def recipient_rule(channel: Channel) -> str:
    """What a recipient of a channel must be, in words."""
    return _RECIPIENT_RULES[channel]


def is_recipient(value: Any, channel: Channel | None) -> bool:
    """Whether it can be a recipient of that channel."""
    if not isinstance(value, str):
        return False
    if channel is Channel.EMAIL:
        return len(value) <= RECIPIENT_CHARS_MAX and _EMAIL.fullmatch(value) is not None
    if channel in (Channel.SMS, Channel.WHATSAPP):
        return _PHONE.fullmatch(value) is not None
    is_token = 0 < len(value) <= 4096 and value.isprintable()
    return is_token and (value[0] != "{" or parse_subscription(value) is not None)


def _is_text(value: Any, chars_max: int) -> bool:
    return isinstance(value, str) and 0 < len(value) <= chars_max and value.isprintable()


def _content_faults(content: Any, channel: Channel | None) -> list[Problem]:
    if not isinstance(content, dict):
        return [_invalid("/content", "must be an object")]
    if channel is None:
        return []
    known = CONTENT_FIELDS[channel]
    faults = []
    if not content.keys() <= known:
        faults.append(_invalid("/content", f"has an unknown field; known are {', '.join(sorted(known))}", "field_unknown"))
    faults.extend(
        _invalid(f"/content/{name}", "must be a text that is not empty")
        for name in sorted(known & content.keys())
        if name not in _OBJECTS and not (isinstance(content[name], str) and content[name] and "\x00" not in content[name])
    )
    if channel is Channel.EMAIL:
        subject = content.get("subject")
        if "subject" not in content:
            faults.append(_invalid("/content/subject", "is missing", "field_missing"))
        elif isinstance(subject, str) and ("\n" in subject or "\r" in subject):
            faults.append(_invalid("/content/subject", "must be one line"))
        if not ("text" in content or "html" in content):
            faults.append(_invalid("/content", "needs a text, an html part, or both", "field_missing"))
        faults.extend(_invalid(f"/content{below}", detail) for below, detail in extras_faults(content))
    elif channel is Channel.WHATSAPP and "template" in content:
        if "text" in content:
            faults.append(_invalid("/content", "has either a text or a template"))
        faults.extend(_invalid(f"/content/template{below}", detail) for below, detail in template_faults(content["template"]))
    elif "text" not in content:
        faults.append(_invalid("/content/text", "is missing", "field_missing"))
    return faults


def instant(value: Any) -> float | None:
    """An RFC 3339 time with a zone, as Unix seconds; None for anything else."""
    if not isinstance(value, str) or len(value) > 40:
        return None
    try:
        at = datetime.fromisoformat(value)
    except ValueError:
        return None
    # Years that every zone can show, on both ends.
    return at.timestamp() if at.tzinfo is not None and 1970 < at.year < 9999 else None


is_text = _is_text
"""How other documents of producers say the same: a text of one line."""
