"""The exception tree. Expected results are values; these are for broken promises and lost resources."""

from __future__ import annotations

from collections.abc import Sequence

from dispatcher.model import OrganizationId


class DispatcherError(Exception):
    """Anything the dispatcher itself raises."""


class ConfigError(DispatcherError):
    """A setting is missing or wrong. The message names the setting and says what to do; it goes to the user as it is."""


class StoreUnavailable(DispatcherError):
    """Postgres could not be reached, or did not answer within the deadline."""


class StoreInDoubt(StoreUnavailable):
    """The connection broke with a statement on its way: it may or may not have taken effect."""


class StoreTimedOut(StoreInDoubt):
    """Postgres was given a statement and did not answer within the deadline: less at once may fare better."""


class StoreRefused(DispatcherError):
    """Postgres refused the content of a statement. Something that validation should have caught; the message holds no values."""


class KeyTaken(StoreRefused):
    """The key of a whole batch has an answer already: another process heard it at the same moment."""


class QueueUnavailable(DispatcherError):
    """Redis could not be reached, or did not answer within the deadline."""


class QueueRefused(QueueUnavailable):
    """Redis answers and refuses this: the keys of an organization are damaged, or its memory is full. Others may fare better."""


class ArrivalsRefused(QueueRefused):
    """The arrivals of these organizations were refused; all others of the same call are in their queues."""

    def __init__(self, organizations: Sequence[OrganizationId], reason: str) -> None:
        super().__init__(f"Redis refused the arrivals of {len(organizations)} organizations: {reason}")
        self.organizations = organizations


class Overloaded(DispatcherError):
    """A bounded buffer is full; try again after ``retry_after_s`` seconds."""

    def __init__(self, what: str, retry_after_s: float) -> None:
        super().__init__(f"{what} is full; retry after {retry_after_s:g} s")
        self.what = what
        self.retry_after_s = retry_after_s
