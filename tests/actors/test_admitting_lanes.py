"""What is accepted reaches the queue of its lane, also when nobody knows whether it was. On in-memory ports."""

from __future__ import annotations

from random import Random

import pytest
import trio
import trio.testing

from actors.acceptor_answers import AcceptRequest
from actors.admitting import Admitting
from actors.memory import MemoryQueue, Moment, checkpoint
from actors.memory_store import MemoryStore
from actors.memory_tables import MemoryDatabase
from actors.metrics import Metrics
from actors.ports import Admission, EventAdmission
from dispatcher.errors import StoreInDoubt
from dispatcher.ids import uuid7
from dispatcher.model import NotificationId, OrganizationId

ACME = OrganizationId("acme")
NOW = 1_700_000_000.0


def admission(number: int, *, bulk: bool | None) -> Admission:
    id = NotificationId(uuid7(1_700_000_000_000 + number, number))
    row = {
        "id": id,
        "organization_id": ACME,
        "channel": "email",
        "attempts_max": 8,
        "created_at": NOW,
        "expires_at": None,
        "recipient": "person@example.org",
        "payload": {"text": "…"},
        "bulk": bulk,
    }
    return Admission(ACME, id, None, b"h", row, is_planned=True)


@pytest.mark.parametrize("in_doubt", [False, True])
async def test_what_is_of_bulk_is_pushed_to_its_own_queue(autojump_clock: trio.testing.MockClock, in_doubt: bool) -> None:
    queue = MemoryQueue(lambda: NOW, lease_s=60)
    store = MemoryStore(MemoryDatabase(lambda: NOW), "one")
    line = Admitting(store, queue, Metrics(), rows_max=100, pending_max=100, tick_s=0.002, wake=lambda _: None, random=Random(1))

    async def lost(operation: str, moment: Moment) -> None:
        await checkpoint(operation, moment)
        if operation == "insert" and moment is Moment.AFTER and in_doubt:
            raise StoreInDoubt("the answer was lost")

    store.interrupt = lost
    plain, bulk = (admission(number, bulk=number == 2) for number in (1, 2))
    event = EventAdmission(ACME, "e-1", "a.b", b"h", None, NOW, (plain, bulk), (), {}, lambda _: b"{}")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(line.run)
        request = AcceptRequest(ACME, (), None, (event,))
        if in_doubt:
            with pytest.raises(StoreInDoubt):
                await line.insert(request)
        else:
            await line.insert(request)
        line.close()

    assert queue.holds(ACME)["queue"] == [plain.id]
    assert queue.holds(ACME)["bulk"] == [bulk.id]
