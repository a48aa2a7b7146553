"""What a simulated provider must know to report back: the port :class:`Reporter`, and the records that pass through it.

A provider reports over HTTP to a *hook*: a URL and the secrets that sign what is sent there. A simulator that also has the
methods of :class:`Reporter` (all of them; nothing else has to be registered) takes part: for every accepted request it says which
messages were in it, for a message and its fate it words the events, and for some events and a hook it makes the signed request.
It stays stateless. Everything else is done for all providers alike: ``reporting`` keeps the hooks, decides fates and when
which event leaves, doubled, shuffled or late; ``postman`` makes the calls and repeats what was not answered with a 2xx.

How to add it to a provider, in order:

1. ``keep`` checks the secrets given with a hook and returns those to sign with; one that was left out may be invented.
2. ``shown`` returns what the other side must be told of them, such as a public key: the answer of ``PUT /_sandbox/webhooks/…``.
3. ``messages`` reads an accepted request again, whole: one :class:`Message` per message, with what ``events`` needs of it in
   ``details``. It gets the same request, and is only called where there is a hook or ``hooks_in_requests`` is true.
4. ``events`` words what is heard of a message with this fate, in the order in which it happens. Their ids must come of
   ``id_bits`` and the place in the list alone.
5. ``callback`` makes the request that carries up to ``events_max`` of them. It is called anew for every repetition, with the time
   of that one and with the bits of the first: what the real provider signs afresh is of the first, ids of messages of the second.
6. ``opening`` is the first request to a new hook, where the provider wants it confirmed; None where it does not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from attrs import field, frozen

from dispatcher_sandbox.fates import Fate
from dispatcher_sandbox.ledger import Correlation
from dispatcher_sandbox.magic import Magic
from dispatcher_sandbox.messages import Request


@frozen
class Hook:
    """Where a provider reports to. ``account`` None is every account without a hook of its own."""

    provider: str
    url: str = field(repr=False)
    account: str | None = field(default=None, repr=False)
    secrets: Mapping[str, str] = field(factory=dict, repr=False)


@frozen
class Message:
    """One message that took effect. ``index`` is its place in the request.

    ``magic`` is the row its recipient names: its ``fate`` and ``late_s`` win over chance. ``hook`` is one that the request itself
    named; it wins over those that were set. ``account`` is what hooks are found by. ``details`` are the simulator's own.
    """

    message_id: str
    index: int
    at_s: float
    correlation: Correlation
    recipient: str = field(repr=False)
    account: str = field(default="", repr=False)
    magic: Magic | None = None
    hook: Hook | None = None
    details: Mapping[str, Any] = field(factory=dict, repr=False)


Event = Mapping[str, Any]
"""One thing that happened, as the provider words it."""


@frozen
class Callback:
    """A request to a hook, ready to be made. Acknowledged by a 2xx, with ``expected`` as its body if that is given."""

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(default=b"", repr=False)
    method: str = "POST"
    expected: bytes | None = None


@runtime_checkable
class Reporter(Protocol):
    """The optional half of a simulator. See the head of this module."""

    @property
    def name(self) -> str:
        """As that of the simulator."""
        ...

    @property
    def events_max(self) -> int:
        """Events that one callback can carry; 1 where every event is a request of its own."""
        ...

    @property
    def hooks_in_requests(self) -> bool:
        """Whether requests can name a hook themselves, so that they must be read even when none was set."""
        ...

    def keep(self, secrets: Mapping[str, str]) -> Mapping[str, str]:
        """The secrets to sign with. Raises ValueError saying which is wrong."""
        ...

    def shown(self, hook: Hook) -> Mapping[str, str]:
        """What a receiver has to know of a hook."""
        ...

    def opening(self, hook: Hook, now_s: float, id_bits: int) -> Callback | None:
        """The request that asks a new hook for its consent."""
        ...

    def messages(self, request: Request, message_id: str, now_s: float) -> Sequence[Message]:
        """The messages of an accepted request."""
        ...

    def events(self, message: Message, fate: Fate, at_s: float, id_bits: int) -> Sequence[Event]:
        """What is heard of a message: nothing for a fate that this provider never reports."""
        ...

    def callback(self, hook: Hook, events: Sequence[Event], now_s: float, id_bits: int) -> Callback:
        """The signed request that carries these events."""
        ...
