"""Keeps one organization's limits over the lives of its actor: read at its start, written as they change and at its end.

What changes is written at most once a second, all channels in one batch, and nothing that sends waits for it. It is a
precaution and no promise: while Redis is away nothing is kept, and a life that then begins does so with care
(``dispatcher.channel_memory``). What could not be written is written later, as it is by then.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping

import trio

from actors.ports import Queue
from dispatcher.channel_memory import Kept, Remembered, from_kept, record_names, to_fields
from dispatcher.channel_state import ChannelState
from dispatcher.errors import QueueUnavailable
from dispatcher.messages import ProviderPolicy, ReturnQuota
from dispatcher.model import OrganizationId

logger = logging.getLogger(__name__)

KEEP_EVERY_S = 1.0
"""Changes are gathered for so long into one writing."""
TRIES_MAX = 120
"""Writings that fail in a row before what has changed waits for the next change: a refusal may be there to stay."""


class ChannelMemory:
    """The kept limits of one organization, as one life of its actor sees them."""

    def __init__(self, organization_id: OrganizationId, queue: Queue) -> None:
        self._organization_id = organization_id
        self._queue = queue
        self._names: dict[str, str] = {}  # under which each configuration is kept, by its id; also of those that are gone
        self._lives: dict[str, int] = {}  # by name
        self._remembered: dict[str, Remembered] = {}  # by configuration, as everything else
        self._changed: set[str] = set()
        self._gathering = False
        self._failures = 0  # writings that failed in a row
        self._ends = 0  # how often this life was about to end
        self._left: set[str] = set()  # the record may say that this life has ended

    async def recall(self, policies: Iterable[ProviderPolicy]) -> Mapping[str, Remembered]:
        """What earlier lives left behind for these configurations, which come best first; each name is asked for once in a life.

        Nothing while Redis is away.
        """
        names = record_names((policy.channel, policy.config_id) for policy in policies)
        self._names.update(names)
        unread = {name: config_id for config_id, name in names.items() if name not in self._lives}
        if unread:
            kept: Mapping[str, Kept] = {}
            try:
                kept = await self._queue.take_channels(self._organization_id, list(unread))
            except QueueUnavailable as error:
                logger.warning("organization %s: its limits begin with care, Redis was away: %s", self._organization_id, error)
            for name, record in kept.items():
                self._lives[name] = record.life
                if (remembered := from_kept(record)) is not None:
                    self._remembered[unread[name]] = remembered
        return self._remembered

    def name_of(self, config_id: str) -> str:
        """Under which name a configuration that was recalled keeps its limits and its quota."""
        return self._names[config_id]

    def consumed(self) -> None:
        """What was recalled is in use: should one of these configurations go and come again, it is old."""
        self._remembered = {}

    def changed(self, config_id: str) -> bool:
        """Note a change. True when the caller should now start :meth:`gather`."""
        self._changed.add(config_id)
        if self._gathering:
            return False
        self._gathering = True
        return True

    @property
    def to_retract(self) -> Collection[str]:
        """Configurations whose record may say that this life has ended. Should it go on and spend, they are to be kept anew.

        Otherwise whoever follows a crash of it would be given the same tokens once more.
        """
        return tuple(self._left)

    async def gather(self, states: Mapping[str, ChannelState]) -> None:
        """Write what has changed, until nothing more has for ``KEEP_EVERY_S``. What Redis did not take is tried again."""
        tries = 0
        try:
            while self._changed and tries < TRIES_MAX:
                changed, ends = self._changed, self._ends
                self._changed = set()
                if await self._write(states, changed, clean=False):
                    tries = 0
                else:
                    tries += 1
                    if ends == self._ends:  # else all of it was written meanwhile, as an end that this would take back
                        self._changed |= changed
                await trio.sleep(KEEP_EVERY_S)
        finally:
            self._gathering = False

    async def leave(self, states: Mapping[str, ChannelState], returns: Collection[ReturnQuota]) -> None:
        """Write everything, so that the next life may go on with these tokens, and give unspent quota back."""
        self._changed.clear()
        self._ends += 1
        await self._write(states, states.keys(), clean=True)
        for back in returns:
            await self.give_back(back)

    async def give_back(self, back: ReturnQuota) -> None:
        """Give unspent quota back. What does not arrive is lost until the window ends."""
        try:
            await self._queue.ask_quota(self._organization_id, self.name_of(back.config_id), back.ask)
        except QueueUnavailable:
            logger.warning("organization %s: %d units of quota could not be given back", self._organization_id, -back.ask.n)

    async def _write(self, states: Mapping[str, ChannelState], config_ids: Collection[str], *, clean: bool) -> bool:
        """Whether nothing is left to be written."""
        now_s = trio.current_time()
        mine = {id: self._names[id] for id in config_ids if id in states and self._names.get(id) in self._lives}
        records = {name: (self._lives[name], to_fields(states[id].saved(now_s), clean=clean)) for id, name in mine.items()}
        if not records:
            return True
        if clean:
            self._left |= mine.keys()
        try:
            await self._queue.keep_channels(self._organization_id, records)
        except QueueUnavailable as error:
            if not self._failures:
                logger.warning("organization %s: its limits could not be kept: %s", self._organization_id, error)
            self._failures += 1
            return False
        self._failures = 0
        if not clean:
            self._left -= mine.keys()
        return True
