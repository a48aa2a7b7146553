"""What people want to get: their preferences by topic and channel, laid over what a topic does by itself.

Of the preferences that are about a topic and a channel the most specific one decides: the pair itself, then the topic on every
channel, then every topic on the channel, then everything. Invariant: the preference that decides is never overruled by a less
specific one, and a critical topic by none at all.
"""

from __future__ import annotations

from collections.abc import Mapping

from dispatcher.decisions import Code
from dispatcher.model import Channel
from dispatcher.people import ANY, User
from dispatcher.topics import Topic


def allowed(user: User | None, topic: Topic | None, channel: Channel) -> Code:
    """Whether something of a topic may be sent to somebody by a channel, and why; one of the PREFERENCE codes.

    Who is not known as a user has no preferences. What belongs to no topic is not subject to any.
    """
    if topic is None:
        return Code.PREFERENCE_NO_TOPIC
    if topic.critical:
        return Code.PREFERENCE_CRITICAL
    said = None if user is None else preference(user.preferences, topic.name, channel)
    if said is None:
        return Code.PREFERENCE_DEFAULT if channel in topic.default else Code.PREFERENCE_DENIED
    return Code.PREFERENCE_ALLOWED if said else Code.PREFERENCE_DENIED


def preference(preferences: Mapping[tuple[str, str], bool], topic: str, channel: Channel) -> bool | None:
    """What the most specific preference says; None when none is about these."""
    for name in ((topic, channel.value), (topic, ANY), (ANY, channel.value), (ANY, ANY)):
        if name in preferences:
            return preferences[name]
    return None
