"""Dead letters as a stream of JSON lines, however many there are, in the memory of one page.

Between two pages nothing is held but a counter: a reader who is slow, or gone, keeps no connection to Postgres. What is read is
read page by page, so letters that come or go meanwhile may be in it or not; none comes twice. A stream that could not be
finished ends without the end of its chunks, so that half a file can not pass for a whole one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any

import orjson
import trio

from actors.io.postgres import Pool
from actors.store.dead_letter_export import ROWS_MAX, ExportedLetter, read_letters
from actors.store.dead_letter_filter import LetterFilter
from dispatcher.errors import Overloaded
from dispatcher.model import OrganizationId
from dispatcher_http import wire

CONTENT_TYPE = "application/x-ndjson"
EXPORTS_MAX, ORGANIZATION_EXPORTS_MAX = 16, 2
"""Exports under way at once, in the process and for one organization."""


class Exports:
    """The exports under way. ``turns`` is shared with whoever else reads or changes many letters at once."""

    def __init__(self, pool: Pool, turns: trio.CapacityLimiter) -> None:
        self._pool = pool
        self._turns = turns
        self._under_way: Counter[OrganizationId] = Counter()

    async def open(
        self, organization_id: OrganizationId, which: LetterFilter, after: str | None, *, people: bool
    ) -> AsyncIterator[bytes]:
        """The lines, in pieces of one page. Raises Overloaded or StoreUnavailable while there still is somebody to tell."""
        if self._under_way.total() >= EXPORTS_MAX or self._under_way[organization_id] >= ORGANIZATION_EXPORTS_MAX:
            raise Overloaded("the set of exports", 5)
        first = await self._page(organization_id, which, after, people)
        return self._pieces(organization_id, which, first, people)

    def under_way(self) -> int:
        """How many there are at this moment."""
        return self._under_way.total()

    async def _pieces(
        self, organization_id: OrganizationId, which: LetterFilter, page: Sequence[ExportedLetter], people: bool
    ) -> AsyncIterator[bytes]:
        # Counted from the first piece on: a stream that nobody ever begins to read is never closed either.
        self._under_way[organization_id] += 1
        try:
            while page:
                yield b"".join(orjson.dumps(_document(letter)) + b"\n" for letter in page)
                if len(page) < ROWS_MAX:
                    return
                page = await self._page(organization_id, which, page[-1].notification_id, people)
        finally:
            self._under_way[organization_id] -= 1

    async def _page(
        self, organization_id: OrganizationId, which: LetterFilter, after: str | None, people: bool
    ) -> Sequence[ExportedLetter]:
        async with self._turns:
            return await read_letters(self._pool, organization_id, which, after, people=people)


def _document(letter: ExportedLetter) -> dict[str, Any]:
    document: dict[str, Any] = {
        "notification_id": letter.notification_id,
        "reason": letter.reason,
        "code": letter.code,
        "channel": letter.channel,
        "provider": letter.provider,
        "created_at": wire.moment(letter.created_at),
        "accepted_at": wire.moment(letter.accepted_at),
        "expires_at": wire.moment(letter.expires_at),
        "attempts": letter.attempts,
        "attempts_max": letter.attempts_max,
        "unknowns": letter.unknowns,
        "template_id": letter.template_id,
        "template": letter.template,
        "locale": letter.locale,
    }
    if letter.person is not None:
        document["recipient"] = letter.person.recipient
        document["user_id"] = letter.person.user_id
        document["idempotency_key"] = letter.person.idempotency_key
    return document
