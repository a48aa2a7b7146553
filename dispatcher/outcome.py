"""What one attempt at a provider may end in: a closed set.

A provider's ``classify`` maps its answer to exactly one :class:`Outcome`. An outcome never carries the provider's own
words, because providers echo recipients in their error texts; it carries a short code from the provider's table.
"""

from __future__ import annotations

from enum import StrEnum

from attrs import frozen


class OutcomeClass(StrEnum):
    """How an attempt ended, as far as the next decision is concerned."""

    DELIVERED = "delivered"
    """The provider took responsibility for the message."""
    SOFT = "soft"
    """Transient: worth another attempt after a jittered backoff."""
    RATE_LIMITED = "rate_limited"
    """The provider asked us to slow down. Costs no attempt; never opens a breaker."""
    HARD = "hard"
    """Refused for good, because of the message itself: the recipient stays usable."""
    SUPPRESS = "suppress"
    """Hard, and the recipient must not be used on this channel again."""
    MISCONFIGURED = "misconfigured"
    """Credentials, sender or account are wrong: pauses the provider configuration and alerts. Costs no attempt."""
    UNKNOWN = "unknown"
    """The request was (maybe) written and no answer came: the provider may or may not have acted."""
    UNRESOLVED = "unresolved"
    """The provider could not say what became of an earlier attempt, so this one sent nothing. Says nothing of its health."""
    INTERRUPTED = "interrupted"
    """The attempt never started (shutdown, breaker opened meanwhile). Costs no attempt."""


class RateScope(StrEnum):
    """Whom a provider's refusal for too many requests is about."""

    ACCOUNT = "account"
    """The account, the sender or the application: everything this configuration sends waits."""
    RECIPIENT = "recipient"
    """This recipient or device alone. Costs an attempt, because nothing else ends it, and nobody else waits."""


class OnUnknown(StrEnum):
    """What a channel does with a notification of which an attempt ended without anybody knowing its effect."""

    RESEND = "resend"
    """Send again under the same key while the provider honours it; where it honours none, as RESEND_ONCE."""
    RESEND_ONCE = "resend_once"
    """One further attempt; after a second unknown it is held for a person."""
    HOLD = "hold"
    """Never again without a person."""
    ASK = "ask"
    """Ask the provider first, and send only what it has no record of."""


FOUND_AT_PROVIDER = "found_at_provider"
"""The code of a delivery that the provider's records show, although its answer was lost."""


@frozen
class Outcome:
    """The end of one attempt.

    ``code`` is a short stable token such as ``http_503`` or ``timeout_connect``, at most 64 ASCII characters, free of
    personal data. ``retry_after_s`` is the provider's own hint, seconds from now; it may only lengthen a delay. ``scope`` matters
    for RATE_LIMITED only. ``attempts_max`` is how many attempts in all are worth making of what ends like this, None as many as
    there are; ``wait_s`` is the least wait before the next one by our own table, which no cap on hints shortens. ``since_unix_s``
    is since when a suppressed recipient is known to be gone, if the provider told: one registered anew after that is another one.
    """

    kind: OutcomeClass
    code: str
    provider_message_id: str | None = None
    retry_after_s: float | None = None
    scope: RateScope = RateScope.ACCOUNT
    attempts_max: int | None = None
    wait_s: float = 0.0
    since_unix_s: float | None = None
