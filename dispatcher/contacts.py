"""What is known of one address of one channel: may we still send there?

A contact is made of the times of the latest events of each kind, never of their order of arrival: in which order they come, and
how often, makes no difference. What was done by hand (``reset_at``) counts against everything that happened before it.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from hashlib import sha256

from attrs import evolve, field, frozen

from dispatcher.feedback.feedback import SOFT_BOUNCE_EXPIRY_S, SOFT_BOUNCES_MAX, FeedbackKind
from dispatcher.model import Channel

SOFT_BOUNCES_KEPT = 2 * SOFT_BOUNCES_MAX
"""The latest ones. More would only matter if older ones than these came in later still."""
SOFT_CODE = "soft_bounces"
"""The code of a contact that counts as bounced because of so many soft bounces."""


class ContactStatus(StrEnum):
    """Whether an address may be used. The worst that is known wins, in the order complained, invalid or bounced, unsubscribed."""

    ACTIVE = "active"
    BOUNCED = "bounced"
    COMPLAINED = "complained"
    UNSUBSCRIBED = "unsubscribed"
    INVALID = "invalid"


IGNORABLE = frozenset({ContactStatus.UNSUBSCRIBED, ContactStatus.BOUNCED})
"""What a producer may send in spite of."""
CONTACT_KINDS = frozenset(
    {
        FeedbackKind.BOUNCED,
        FeedbackKind.SOFT_BOUNCED,
        FeedbackKind.COMPLAINED,
        FeedbackKind.UNSUBSCRIBED,
        FeedbackKind.RESUBSCRIBED,
        FeedbackKind.INVALID,
    }
)
"""Reports that say something about a contact nobody has heard of yet."""
CLEARING_KINDS = frozenset({FeedbackKind.DELIVERED, FeedbackKind.READ})
"""Reports that clear the soft bounces of a contact that has some."""

_SUPPRESSED_AS: tuple[tuple[str, ContactStatus], ...] = (
    ("unsubscribed", ContactStatus.UNSUBSCRIBED),
    ("opted_out", ContactStatus.UNSUBSCRIBED),
    ("complain", ContactStatus.COMPLAINED),
    ("bounce", ContactStatus.BOUNCED),
)


def suppressed_as(code: str) -> ContactStatus:
    """What a contact becomes when a provider refuses it for good at sending: by the words of the code, otherwise invalid."""
    return next((status for word, status in _SUPPRESSED_AS if word in code), ContactStatus.INVALID)


def canonical(channel: Channel, recipient: str) -> str:
    """A recipient without the differences that make none: an email address in small (ASCII) letters, others as they are."""
    if channel is not Channel.EMAIL:
        return recipient
    return recipient.encode("utf-8", "surrogatepass").lower().decode("utf-8", "surrogatepass")


def address_of(channel: Channel, recipient: str) -> bytes:
    """What identifies a contact within its organization and channel. ``contact_address`` in the schema is the same."""
    return sha256(canonical(channel, recipient).encode("utf-8", "surrogatepass")).digest()


@frozen
class Contact:
    """One address. All times are Unix seconds; None for what has never happened."""

    complained_at_s: float | None = None
    complaint_code: str | None = None
    failed_at_s: float | None = None
    failed_as: ContactStatus | None = None
    failure_code: str | None = None
    exhausted_at_s: float | None = None
    unsubscribed_at_s: float | None = None
    unsubscribe_code: str | None = None
    resubscribed_at_s: float | None = None
    reset_at_s: float | None = None
    delivered_at_s: float | None = None
    soft_bounces: tuple[float, ...] = field(default=())

    @property
    def standing(self) -> tuple[ContactStatus, str | None, float | None]:
        """The status, the code of what made it so, and since when."""
        reset_s = _or_never(self.reset_at_s)
        if _or_never(self.complained_at_s) > reset_s:
            return ContactStatus.COMPLAINED, self.complaint_code, self.complained_at_s
        if _or_never(self.failed_at_s) > reset_s:
            return self.failed_as or ContactStatus.INVALID, self.failure_code, self.failed_at_s
        if _or_never(self.exhausted_at_s) > reset_s:
            return ContactStatus.BOUNCED, SOFT_CODE, self.exhausted_at_s
        if _or_never(self.unsubscribed_at_s) > max(reset_s, _or_never(self.resubscribed_at_s)):
            return ContactStatus.UNSUBSCRIBED, self.unsubscribe_code, self.unsubscribed_at_s
        return ContactStatus.ACTIVE, None, None

    @property
    def status(self) -> ContactStatus:
        """Whether it may be used."""
        return self.standing[0]

    def after(self, kind: FeedbackKind, code: str, at_unix_s: float) -> Contact:
        """The contact once one more event is known."""
        match kind:
            case FeedbackKind.COMPLAINED:
                if _is_later((at_unix_s, code), (self.complained_at_s, self.complaint_code)):
                    return evolve(self, complained_at_s=at_unix_s, complaint_code=code)
            case FeedbackKind.BOUNCED | FeedbackKind.INVALID:
                failed_as = ContactStatus.BOUNCED if kind is FeedbackKind.BOUNCED else ContactStatus.INVALID
                known = (self.failed_at_s, self.failed_as, self.failure_code)
                if _is_later((at_unix_s, failed_as, code), known):
                    return evolve(self, failed_at_s=at_unix_s, failed_as=failed_as, failure_code=code)
            case FeedbackKind.UNSUBSCRIBED:
                if _is_later((at_unix_s, code), (self.unsubscribed_at_s, self.unsubscribe_code)):
                    return evolve(self, unsubscribed_at_s=at_unix_s, unsubscribe_code=code)
            case FeedbackKind.RESUBSCRIBED:
                return evolve(self, resubscribed_at_s=max(_or_never(self.resubscribed_at_s), at_unix_s))
            case FeedbackKind.SOFT_BOUNCED:
                soft = (*sorted({*self.soft_bounces, at_unix_s})[-SOFT_BOUNCES_KEPT:],)
                return evolve(self, soft_bounces=soft)._exhausted()
            case FeedbackKind.DELIVERED | FeedbackKind.READ:
                if at_unix_s > _or_never(self.delivered_at_s):
                    return evolve(self, delivered_at_s=at_unix_s)._exhausted()
        return self

    def reset(self, at_unix_s: float) -> Contact:
        """The contact once somebody has made it active by hand. What happens later counts again.

        Everything that is known counts as before, also what a provider's clock puts a little later.
        """
        known = (self.complained_at_s, self.failed_at_s, self.exhausted_at_s, self.unsubscribed_at_s, self.reset_at_s)
        return evolve(self, reset_at_s=max(at_unix_s, *map(_or_never, known)))._exhausted()

    def _exhausted(self) -> Contact:
        """Find out whether too many soft bounces lie too close together, with no delivery and no reset in between."""
        since_s = max(_or_never(self.delivered_at_s), _or_never(self.reset_at_s))
        counting = [at_s for at_s in self.soft_bounces if at_s > since_s]
        runs = zip(counting, counting[SOFT_BOUNCES_MAX - 1 :], strict=False)
        ends = [last_s for first_s, last_s in runs if last_s - first_s <= SOFT_BOUNCE_EXPIRY_S]
        return evolve(self, exhausted_at_s=ends[-1] if ends else None)


def merged(contact: Contact, events: Iterable[tuple[FeedbackKind, str, float]]) -> Contact:
    """The contact once all of these are known, in whatever order."""
    for kind, code, at_unix_s in events:
        contact = contact.after(kind, code, at_unix_s)
    return contact


def _or_never(at_unix_s: float | None) -> float:
    return float("-inf") if at_unix_s is None else at_unix_s


def _is_later(event: tuple[float | str, ...], known: tuple[float | str | None, ...]) -> bool:
    """Later, or at the same time and after in the alphabet, so that of two the same one wins in either order."""
    return known[0] is None or event > known
