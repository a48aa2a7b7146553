"""What is handed in about people, checked: profiles, contact points, push tokens, preferences.

Every fault of a document is reported at once, with a pointer and never with a value, because the values are somebody's data.
Invariant: what is taken here can be stored, and sent to, as it is.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from attrs import field, frozen

from dispatcher.acceptance import instant, is_recipient, recipient_rule, together
from dispatcher.locales import normalize
from dispatcher.model import Channel
from dispatcher.people import ANY, QuietHours
from dispatcher.policy import read_quiet_hours
from dispatcher.problems import Problem
from dispatcher.subscriptions import normal_subscription
from dispatcher.topics import is_topic_name
from dispatcher.zones import ZONE_RULE, is_zone

USERS_MAX: Final = 1_000
"""In one batch."""
POINTS_MAX: Final = 20
"""Of one person on one channel."""
PREFERENCES_MAX: Final = 500
USER_ID_BYTES_MAX: Final = 255
APP_CHARS_MAX: Final = 100
PLATFORMS: Final = ("ios", "android", "web")
USER_ID_RULE: Final = f"must be 1 to {USER_ID_BYTES_MAX} bytes of visible characters without a slash"

_TITLE = "This can not be stored of a person"
_USER_FIELDS = frozenset({"locale", "time_zone", "quiet_hours", "contact_points"})
_POINT_FIELDS = frozenset({"channel", "recipient"})
_TOKEN_FIELDS = frozenset({"token", "app", "platform", "expires_at"})
_PREFERENCE_FIELDS = frozenset({"topic", "channel", "allowed"})
_CHANNELS = {channel.value: channel for channel in Channel}
_LISTED = {channel.value: channel for channel in Channel if channel is not Channel.PUSH}


@frozen
class Profile:
    """A person as handed in. ``points`` has the channels that were named, each with all its recipients in order of preference;
    others stay as they are.
    """

    id: str = field(repr=False)
    locale: str | None = None
    time_zone: str | None = None
    quiet_hours: QuietHours | None = None
    points: Mapping[Channel, Sequence[str]] = field(factory=dict, repr=False)


@frozen
class Token:
    """A push token of one app on one device. ``expires_at_s`` is Unix seconds; None: it does not expire by itself."""

    recipient: str = field(repr=False)
    app: str | None = None
    platform: str | None = None
    expires_at_s: float | None = None


@frozen
class Preference:
    """Whether somebody wants a topic by a channel; either may be ``ANY``."""

    topic: str
    channel: str
    allowed: bool


def is_user_id(value: Any) -> bool:
    """Whether a person can be known by this. It stands in paths, so it has no slash."""
    return (
        isinstance(value, str)
        and value.isprintable()
        and "/" not in value
        and value not in (".", "..")
        and value == value.strip()
        and 0 < len(value.encode("utf-8", "replace")) <= USER_ID_BYTES_MAX
    )


def parse_profile(id: str, body: Any, fields: Collection[str] = _USER_FIELDS) -> Profile | Problem:
    """Read a profile. ``fields`` are those that may be there."""
    if not isinstance(body, Mapping):
        return _fault("", "must be an object", "body_invalid")
    faults = _unknown(body, fields)
    locale, time_zone = body.get("locale"), body.get("time_zone")
    normal_locale = normalize(locale) if isinstance(locale, str) else None
    if locale is not None and normal_locale is None:
        faults.append(_fault("/locale", "must be a BCP 47 language tag such as pt-BR"))
    if time_zone is not None and not is_zone(time_zone):
        faults.append(_fault("/time_zone", ZONE_RULE))
    quiet_hours = None
    if body.get("quiet_hours") is not None:
        quiet_hours = read_quiet_hours(body["quiet_hours"], "/quiet_hours", faults)
    points = _points(body.get("contact_points"), faults)
    return together(faults) if faults else Profile(id, normal_locale, time_zone, quiet_hours, points)


def parse_profiles(rows: Sequence[Any]) -> list[Profile | Problem]:
    """Read many, each with its ``id``, which may stand there once. Pointers of each are its own."""
    found: list[Profile | Problem] = []
    seen: set[str] = set()
    for row in rows:
        id = row.get("id") if isinstance(row, Mapping) else None
        parsed = parse_profile(id if isinstance(id, str) else "", row, {*_USER_FIELDS, "id"})
        faults = [] if isinstance(parsed, Profile) else list(parsed.errors or (parsed,))
        if isinstance(row, Mapping):
            if not (isinstance(id, str) and is_user_id(id)):
                faults.insert(0, _fault("/id", USER_ID_RULE))
            elif id in seen:
                faults.insert(0, _fault("/id", "must be another one than those before it in this batch", "user_repeated"))
            else:
                seen.add(id)
        found.append(together(faults) if faults else parsed)
    return found


def parse_point(body: Mapping[str, Any]) -> tuple[Channel, str] | Problem:
    """Read one contact point: a channel and a recipient. Tokens are registered as such."""
    faults = _unknown(body, _POINT_FIELDS)
    name, recipient = body.get("channel"), body.get("recipient")
    channel = _LISTED.get(name) if isinstance(name, str) else None
    if channel is None:
        faults.append(_fault("/channel", f"must be one of {', '.join(_LISTED)}; push tokens are registered as such"))
    elif not is_recipient(recipient, channel):
        faults.append(_fault("/recipient", recipient_rule(channel)))
    return together(faults) if faults or channel is None else (channel, str(recipient))


def parse_token(body: Mapping[str, Any], now_unix_s: float) -> Token | Problem:
    """Read a push token."""
    faults = _unknown(body, _TOKEN_FIELDS)
    token, app, platform, expires_at = (body.get(name) for name in ("token", "app", "platform", "expires_at"))
    if not is_recipient(token, Channel.PUSH):
        faults.append(_fault("/token", recipient_rule(Channel.PUSH)))
    if app is not None and not (isinstance(app, str) and 0 < len(app) <= APP_CHARS_MAX and app.isprintable()):
        faults.append(_fault("/app", f"must be a text of 1 to {APP_CHARS_MAX} characters"))
    if platform is not None and platform not in PLATFORMS:
        faults.append(_fault("/platform", f"must be one of {', '.join(PLATFORMS)}"))
    elif platform is not None and isinstance(token, str) and (platform == "web") is not token.startswith("{"):
        faults.append(_fault("/platform", "must be web for the subscription of a browser, and only for that"))
    expires_at_s = instant(expires_at)
    if expires_at is not None and expires_at_s is None:
        faults.append(_fault("/expires_at", "must be an RFC 3339 time with a zone, such as 2026-01-31T12:00:00Z"))
    elif expires_at_s is not None and expires_at_s <= now_unix_s:
        faults.append(_fault("/expires_at", "lies in the past", "already_expired"))
    return together(faults) if faults else Token(normal_subscription(str(token)), app, platform, expires_at_s)


def parse_preferences(body: Mapping[str, Any], topics: Collection[str]) -> list[Preference] | Problem:
    """Read all preferences of a person. ``topics`` are those that the organization has."""
    faults = _unknown(body, {"preferences"})
    rows = body.get("preferences")
    if not isinstance(rows, list) or len(rows) > PREFERENCES_MAX:
        faults.append(_fault("/preferences", f"must be a list of at most {PREFERENCES_MAX} preferences"))
        return together(faults)
    found: dict[tuple[str, str], Preference] = {}
    for index, row in enumerate(rows):
        at = f"/preferences/{index}"
        if not isinstance(row, Mapping):
            faults.append(_fault(at, "must be an object"))
            continue
        faults.extend(fault.below(at) for fault in _unknown(row, _PREFERENCE_FIELDS))
        topic, channel, allowed = row.get("topic"), row.get("channel"), row.get("allowed")
        faults.extend(fault.below(at) for fault in place_faults(topic, channel, topics))
        if not isinstance(allowed, bool):
            faults.append(_fault(f"{at}/allowed", "must be true or false"))
        elif isinstance(topic, str) and isinstance(channel, str):
            if (topic, channel) in found:
                faults.append(_fault(at, "must be of another topic or channel than those before it"))
            found[topic, channel] = Preference(topic, channel, allowed)
    return together(faults) if faults else list(found.values())


def place_faults(topic: Any, channel: Any, topics: Collection[str]) -> list[Problem]:
    """What is wrong with the topic and the channel of a preference. A topic that there is not is named: it is nobody's data."""
    faults = []
    if not isinstance(topic, str) or (topic != ANY and topic not in topics):
        named = f'there is no topic "{topic}"; it ' if is_topic_name(topic) else ""
        rule = f'must be the name of a topic of this organization, or "{ANY}" for every one'
        faults.append(_fault("/topic", named + rule, "topic_unknown"))
    if not isinstance(channel, str) or (channel != ANY and channel not in _CHANNELS):
        faults.append(_fault("/channel", f'must be one of {", ".join(_CHANNELS)}, or "{ANY}" for every one'))
    return faults


def _points(value: Any, faults: list[Problem]) -> Mapping[Channel, Sequence[str]]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        faults.append(_fault("/contact_points", 'must be an object such as {"email": ["ada@example.org"]}'))
        return {}
    if not value.keys() <= _LISTED.keys():
        known = ", ".join(_LISTED)
        detail = f"has a channel that can not stand here; those that can are {known}; push tokens are registered as such"
        faults.append(_fault("/contact_points", detail, "field_unknown"))
    found: dict[Channel, Sequence[str]] = {}
    for name, channel in _LISTED.items():
        if name not in value:
            continue
        at, recipients = f"/contact_points/{name}", value[name]
        if not isinstance(recipients, list) or len(recipients) > POINTS_MAX:
            faults.append(_fault(at, f"must be a list of at most {POINTS_MAX} recipients"))
            continue
        wrong = [index for index, recipient in enumerate(recipients) if not is_recipient(recipient, channel)]
        faults.extend(_fault(f"{at}/{index}", recipient_rule(channel)) for index in wrong)
        if not wrong:
            found[channel] = tuple(dict.fromkeys(recipients))
    return found


def _unknown(body: Mapping[str, Any], known: Collection[str]) -> list[Problem]:
    if body.keys() <= set(known):
        return []
    return [_fault("", f"has an unknown field; known are {', '.join(sorted(known))}", "field_unknown")]


def _fault(pointer: str, detail: str, code: str = "field_invalid") -> Problem:
    return Problem(422, code, _TITLE, detail, pointer)
