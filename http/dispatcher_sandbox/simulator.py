"""What a simulated provider is: the port that each provider's module fills in.

A simulator knows one provider's wire format and rules, and nothing else. It is stateless: it reads a request, and words the
answers. Whether a valid request is accepted, refused, delayed or dropped is decided for all providers alike in ``conduct``;
what was accepted is kept for all providers alike in the ledger. Adding a provider means adding a module with a Simulator and
naming it in ``simulators``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

from dispatcher_sandbox.behaviour import Behaviour
from dispatcher_sandbox.ledger import Correlation, Sent
from dispatcher_sandbox.magic import Magic
from dispatcher_sandbox.messages import Answer, Request
from dispatcher_sandbox.rate import Rate


class Entry(NamedTuple):
    """One message of a request whose messages are accepted or refused one by one. ``fault`` is set when the rules refuse it."""

    correlation: Correlation
    magic: Magic | None = None
    magic_name: str = ""
    fault: str = ""


class EntryResult(NamedTuple):
    """What became of an entry: its message's id, or the status and reason of its refusal."""

    message_id: str | None
    status: int = 0
    reason: str = ""


class Intake(NamedTuple):
    """What a simulator read from a request the provider would take.

    ``correlations`` has one entry per message. ``magic_name`` is what the sightings of ``magic`` are counted under.
    ``validate_only`` asks for an answer without any effect. ``entries`` are there where each message has a result of its own:
    then the simulator is ``OneByOne``, and ``magic`` is that of an entry whose trick is played on the whole request.
    ``words`` takes the place of ``Simulator.accepted`` where the answer repeats something of this request.
    """

    correlations: tuple[Correlation, ...]
    idempotency_key: str | None = None
    magic: Magic | None = None
    magic_name: str = ""
    validate_only: bool = False
    entries: tuple[Entry, ...] = ()
    words: Callable[[int], tuple[str, Answer]] | None = None


class Search(NamedTuple):
    """A question about what was accepted: which messages carry this notification's id, at most ``limit`` of them."""

    notification_id: str
    limit: int


class Consent(NamedTuple):
    """Somebody has agreed to be reported to: counted as ``confirmed`` among the ledger's webhooks."""

    answer: Answer


@runtime_checkable
class Renewable(Protocol):
    """A simulator that remembers something, of which every sandbox has its own."""

    def renewed(self) -> Simulator:
        """One that remembers nothing yet."""
        ...


class Simulator(Protocol):
    """One provider."""

    @property
    def name(self) -> str:
        """As it is called in the ledger and on the command line."""
        ...

    @property
    def prefix(self) -> bytes | tuple[bytes, ...]:
        """Requests whose target begins so, or with one of these, are this provider's."""
        ...

    @property
    def ceiling_per_s(self) -> int:
        """The provider's own rate limit: what a 429 names when the behaviour sets none."""
        ...

    def account(self, request: Request) -> bytes:
        """What the rate limit is counted by. Called before anything about the request is known to be valid."""
        ...

    def read(self, request: Request, behaviour: Behaviour, now_s: float) -> Intake | Search | Consent | Answer:
        """Check a request as the provider does: what it carries or asks, or the answer that refuses it or needs no decision."""
        ...

    def listing(self, sent: Sequence[Sent]) -> Answer:
        """The answer to a search: the messages that were found."""
        ...

    def accepted(self, id_bits: int) -> tuple[str, Answer]:
        """The message id made of 128 random bits, and the answer of a request that took effect."""
        ...

    def replayed(self, message_id: str) -> Answer:
        """The answer of a request that took effect earlier under this id."""
        ...

    def validated(self) -> Answer:
        """The answer of a valid request that asked for validation only."""
        ...

    def refused(self, status: int, reason: str) -> Answer:
        """The answer of a request refused with ``status``; ``reason`` picks a text where the status has several."""
        ...

    def rate_headers(self, rate: Rate) -> bytes:
        """The header lines, each with its CRLF, that tell a client where it stands."""
        ...


@runtime_checkable
class OneByOne(Protocol):
    """A simulator of a provider that answers for each message of a request."""

    def entry_id(self, message_id: str, index: int) -> str:
        """The id of one message of a request that took effect under this one."""
        ...

    def answered(self, results: Sequence[EntryResult]) -> Answer:
        """The answer of a request, whatever became of its messages."""
        ...
