"""Several mails in one request to SendGrid: its personalizations.

A personalization has a recipient, a subject and arguments of its own; the content is one for all. So mails with equal content
ride together as they are. Others ride together by substitution, as old SendGrid templates do it: the content of the request is a
tag, and each personalization says what stands in its place. A tag is made of fresh random bytes for each request, so no content
can hold one. What is too long to be substituted rides with its equals only.

Invariant: every recipient gets exactly the words of their own notification, whoever rides with them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Sequence
from typing import Final

import orjson

from dispatcher.model import Delivery
from dispatcher.outcome import Outcome, OutcomeClass
from dispatcher.providers.batching import Part
from dispatcher.providers.sendgrid_content import content_of, texts_of, written
from dispatcher.providers.sendgrid_errors import STATUSES, named_fields, row_of_field

BATCH_MAX: Final = 1000
"""Personalizations, and recipients over all of them, that SendGrid takes in one request."""
SUBSTITUTED_BYTES_MAX: Final = 10_000 - 200
"""What is substituted in one personalization may have 10,000 bytes; some are for the tags and what is written around them."""
PERSONALIZATION_BYTES_MAX: Final = 4_000
"""A longer one (its subject is long) goes alone: 1000 of these with their substitutions are well below SendGrid's 30 MB."""
TAG_BYTES: Final = 16

_NAMED = re.compile(r"personalizations\.(\d{1,4})(?=\.|$)")


def is_batch_max(value: object) -> bool:
    """Whether a setting says how many may ride together."""
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= BATCH_MAX


def part_of(delivery: Delivery, personalization: bytes) -> Part | None:
    """The part of a mail. ``personalization`` is its own, but for what is substituted and the closing brace.

    None for one that goes alone. Raises Unsendable, and JSONEncodeError for what is not Unicode.
    """
    content = content_of(delivery.payload)
    if len(personalization) > PERSONALIZATION_BYTES_MAX:
        return None
    key: Hashable = content
    if len(content) <= SUBSTITUTED_BYTES_MAX:
        text, html = texts_of(delivery.payload)
        key = (text is not None, html is not None)
    return Part(delivery, key, personalization)


def body_of(parts: Sequence[Part], constant: bytes, random_bytes: Callable[[int], bytes]) -> bytes:
    """The body for parts with equal keys. ``constant`` are the fields that all requests have."""
    texts = [texts_of(part.delivery.payload) for part in parts]
    if _are_equal(texts):
        blocks = b"},".join(part.content for part in parts)
        content = written(*texts[0])
    else:
        tag = random_bytes(TAG_BYTES).hex()
        text_tag, html_tag = f"-{tag}-text-", f"-{tag}-html-"
        blocks = b"},".join(
            part.content + _substitutions(text_tag, text, html_tag, html) for part, (text, html) in zip(parts, texts, strict=True)
        )
        text, html = texts[0]
        content = written(None if text is None else text_tag, None if html is None else html_tag)
    return b'{"personalizations":[' + blocks + b"}]," + constant + content


def refusals(body: bytes, parts: Sequence[Part], retry_after_s: float | None) -> list[Outcome | None]:
    """What a 400 means for each of several: those that it names are refused, with the others nothing was done.

    A field of all of them that is a setting is refused for all. When it can not be told whose fault it is, nobody has an outcome.
    """
    outcomes: list[Outcome | None] = [None] * len(parts)
    everybodys: Outcome | None = None
    for field in named_fields(body):
        named = _NAMED.match(field)
        index = -1 if named is None else int(named[1])
        if 0 <= index < len(parts):
            if field.startswith(".substitutions", len(f"personalizations.{index}")):  # goes alone, without any
                return [None] * len(parts)
            refused = row_of_field(_NAMED.sub("personalizations.0", field)) or STATUSES.rows[400]
            outcomes[index] = outcomes[index] or refused.outcome(retry_after_s)
        elif named is None and everybodys is None and (row := row_of_field(field)) is not None:
            alike = row.kind is OutcomeClass.MISCONFIGURED or (
                row.code == "content_refused" and _are_equal([texts_of(part.delivery.payload) for part in parts])
            )
            everybodys = row.outcome(retry_after_s) if alike else None
    if everybodys is not None and not any(outcomes):
        return [everybodys] * len(parts)
    return outcomes


def _are_equal(texts: Sequence[tuple[str | None, str | None]]) -> bool:
    first = texts[0]
    return all(each == first for each in texts)


def _substitutions(text_tag: str, text: str | None, html_tag: str, html: str | None) -> bytes:
    """A personalization's own words."""
    own = {}
    if text is not None:
        own[text_tag] = text
    if html is not None:
        own[html_tag] = html
    return b',"substitutions":' + orjson.dumps(own)
