"""Notifications that are handed in for a user, or about a topic: decided about as a rule's are, without a rule.

What is neither has nothing to decide about: it goes to the address it names, as it always did. Invariant: what is not sent is
refused with a problem of its own, because its producer asked for this very notification.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from dispatcher.acceptance import Item
from dispatcher.contacts import ContactStatus
from dispatcher.decisions import Code, decided
from dispatcher.planned import Target, Timing, Wish
from dispatcher.planning import Needs, topic_named
from dispatcher.problems import Problem
from dispatcher.setup import Setup

CONTACTS: Final[Mapping[Code, ContactStatus]] = MappingProxyType(
    {
        Code.CONTACT_BOUNCED: ContactStatus.BOUNCED,
        Code.CONTACT_COMPLAINED: ContactStatus.COMPLAINED,
        Code.CONTACT_UNSUBSCRIBED: ContactStatus.UNSUBSCRIBED,
        Code.CONTACT_INVALID: ContactStatus.INVALID,
    }
)
_REFUSALS: Final[Mapping[Code, tuple[str, str]]] = MappingProxyType(
    {
        Code.RECIPIENT_UNKNOWN: ("/user_id", "There is no such user."),
        Code.RECIPIENT_NO_CONTACT_POINT: ("/user_id", "The user has no contact point on this channel."),
        Code.RECIPIENT_EXPIRED: ("/user_id", "The user's push tokens have expired."),
        Code.PREFERENCE_DENIED: ("/topic", "The user does not want this topic by this channel."),
        Code.TIME_EXPIRED: ("/expires_at", "It would expire before it may be sent."),
        Code.CAP_REACHED: ("/topic", "A frequency cap of the user is reached."),
    }
)
"""Where and why, by the code that ended the chain; the others have problems of their own."""


def wish_of(item: Item, setup: Setup) -> Wish:
    """What somebody wishes who hands this in. It respects quiet hours and caps only where it is about a topic."""
    addresses = {item.channel: item.recipient} if item.recipient else {}
    return Wish(
        decided(Code.RULE_DIRECT),
        Target(item.user_id, addresses, item.locale),
        item.channel,
        item.template,
        item.content,
        item.variables,
        topic=topic_named(setup, item.topic),
        timing=Timing(send_at_s=item.send_at_s, expires_at_s=item.expires_at_s),
        is_considerate=item.topic is not None,
        ignores_suppression=item.ignores_suppression,
        pointer="/variables",
    )


def unknown_topic(item: Item, setup: Setup) -> Problem | None:
    """Why a notification about a topic that is not defined is refused: nobody can have a preference about a misspelt one."""
    if item.topic is None or item.topic in setup.topics:
        return None
    detail = "The organization has no such topic. Define it (PUT /topics/…), or leave it out."
    return Problem(422, "topic_unknown", "The notification can not be accepted", detail, "/topic")


def needs_of_items(items: list[Item]) -> Needs:
    """What has to be known to decide about them."""
    return Needs(
        frozenset(item.user_id for item in items if item.user_id is not None),
        frozenset((item.template, item.channel) for item in items if item.template is not None),
        frozenset((item.channel, item.recipient) for item in items if item.recipient),
    )


def refusal_of(code: Code) -> Problem:
    """What the producer of a notification that ended with one of these codes is told."""
    pointer, detail = _REFUSALS[code]
    return Problem(422, code.value, "The notification is not sent", detail, pointer)
