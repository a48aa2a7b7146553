"""Erasing and exporting a person: nothing of theirs is left anywhere, and the counts stay."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import pytest
from attrs import define, field

from actors.feedback_ports import Report
from actors.io.postgres import Pool
from actors.ports import Admission
from actors.store import contacts, erasing, erasing_addresses
from actors.store.api_keys import Scope
from actors.store.dispatching import PostgresStore
from actors.store.feedback import PostgresFeedback
from dispatcher.contacts import ContactStatus
from dispatcher.feedback.feedback import Feedback, FeedbackKind
from dispatcher.messages import ProviderPolicy, Verdict
from dispatcher.model import Channel, DeadLetterReason, Delivery, NotificationId, OrganizationId, Status
from dispatcher.outcome import Outcome, OutcomeClass
from dispatcher_http import person_rights
from people_world import Desk
from surface_doubles import Surface, assert_problem

ACME = OrganizationId("acme")
OURS = "0198c000-0000-7000-8000-00000000000a"
CONFIG = "0198c000-0000-7000-8000-0000000000c1"
VIA = ProviderPolicy(CONFIG, 1, "sendgrid", Channel.EMAIL, None, 1, 8)
MARK = "zq7erase"
MAIL, SECOND_MAIL, OLD_MAIL = f"{MARK}@example.org", f"Second.{MARK}@example.org", f"old.{MARK}@example.org"
TOKEN = f"token-{MARK}-" + "t" * 30
USER = f"user-{MARK}"
ANCIENT_MAIL = f"ancient.{MARK}@example.org"


@define
class House:
    """A surface, the store of a process that dispatches beside it, and somebody with data in every table."""

    surface: Surface
    desk: Desk
    store: PostgresStore
    _made: int = field(default=0)

    @property
    def pool(self) -> Pool:
        return self.surface.services.pool

    async def accept(self, recipient: str = MAIL, user_id: str | None = USER, **fields: Any) -> NotificationId:
        id = NotificationId(self.surface.services.new_id())
        self._made += 1
        row = {
            "id": id, "organization_id": ACME, "channel": "email", "attempts_max": 8, "created_at": 0.0, "expires_at": None,
            "user_id": user_id, "recipient": recipient, "payload": {"subject": MARK, "text": f"Dear {MARK}"}, "template_id": None,
            "locale": "de", "idempotency_key": f"{MARK}-{self._made}", "request_hash": MARK.encode().hex(), **fields,
        }  # fmt: skip
        ((now_s,),) = await self.pool.fetch("SELECT extract(epoch FROM now())::float8")
        row["created_at"] = now_s
        planned = fields.keys() & {"status", "plan", "decisions"}
        await self.store.insert([Admission(ACME, id, row["idempotency_key"], b"hash", row, is_planned=bool(planned))], ())
        return id

    async def begin(self, id: NotificationId) -> Delivery:
        (gated,) = (await self.store.gate([id], (), again=False)).values()
        (delivery,) = gated.deliveries
        return delivery

    async def end(self, delivery: Delivery, kind: OutcomeClass, code: str, status: Status) -> None:
        dead = DeadLetterReason.SUPPRESSED if status is Status.FAILED else None
        outcome = Outcome(kind, code, provider_message_id="m1" if status is Status.DELIVERED else None)
        assert await self.store.record([Verdict(delivery, outcome, VIA, status, dead=dead)], again=False)

    async def erase(self) -> tuple[int, Any]:
        response = await self.desk.call("POST", f"/{USER}/erase")
        return response.status_code, response.json()

    async def row(self, id: NotificationId) -> tuple[Any, ...]:
        """Status, reason and recipient."""
        rows = await self.pool.fetch("SELECT status, reason, recipient FROM notifications WHERE id = %s", (id,))
        return rows[0]

    async def traces(self) -> list[str]:
        """Every column of every table that has something of the person, as text, JSON or bytes. Partitions are seen as one."""
        columns = await self.pool.fetch(
            "SELECT c.relname, a.attname, format_type(a.atttypid, NULL) FROM pg_class c JOIN pg_attribute a ON attrelid = c.oid "
            "WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition "
            "AND a.attnum > 0 AND NOT a.attisdropped ORDER BY 1, 2"
        )
        looks = []
        for table, column, kind in columns:
            text = f"encode(\"{column}\", 'escape')" if kind == "bytea" else f'"{column}"::text'
            seen = f"SELECT FROM \"{table}\" WHERE lower({text}) LIKE '%%{MARK}%%'"
            looks.append(f"SELECT '{table}.{column}' WHERE EXISTS ({seen})")
        return [row[0] for row in await self.pool.fetch(" UNION ALL ".join(looks))]

    async def count(self, table: str, condition: str = "true") -> int:
        ((count,),) = await self.pool.fetch(f"SELECT count(*) FROM {table} WHERE {condition}")
        return int(count)

    async def settle(self) -> None:
        """All erasures are looked at again, as if nothing that began before them could turn up any more."""
        await self.pool.execute("UPDATE erasures SET next_at = now() - interval '1 s'")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(erasing, "SETTLED_S", -1.0)
            await erasing.go_on(self.pool)


@pytest.fixture
async def house(surface: Surface) -> House:
    desk = Desk(surface)
    await desk.add_topics()
    store = PostgresStore(surface.services.pool, OURS)
    await store.register(1000.0)
    await desk.put(f"/{USER}", {"locale": "de", "time_zone": "Europe/Berlin", "contact_points": {"email": [MAIL, SECOND_MAIL]}})
    await desk.put(f"/{USER}/push_tokens", {"token": TOKEN, "app": f"app-{MARK}"})
    await desk.put(f"/{USER}/preferences", {"preferences": [{"topic": "offers", "channel": "email", "allowed": False}]})
    return House(surface, desk, store)


async def count_one(house: House) -> None:
    statement = "INSERT INTO cap_times (organization_id, user_id, cap, times) VALUES ('acme', %s, 'daily', '{now}')"
    await house.pool.execute(statement, (USER,))


async def everything(house: House) -> dict[str, NotificationId]:
    """A notification in every state, and rows in all other tables."""
    pool = house.pool
    ids = {"delivered": await house.accept(), "failed": await house.accept(OLD_MAIL), "queued": await house.accept()}
    await house.end(await house.begin(ids["delivered"]), OutcomeClass.DELIVERED, "accepted", Status.DELIVERED)
    await house.end(await house.begin(ids["failed"]), OutcomeClass.SUPPRESS, "bounced", Status.FAILED)
    ids["scheduled"] = await house.accept(
        status="scheduled", send_at=4e9, plan={"user": USER, "name": MARK}, decisions=[{"step": "rule", "detail": {"x": MARK}}]
    )
    note = contacts.Wanted(Channel.EMAIL, SECOND_MAIL, ContactStatus.COMPLAINED, note=f"{MARK} called.")
    await contacts.change(pool, ACME, [note], None)
    await count_one(house)
    await pool.execute(
        "WITH d AS (INSERT INTO digests (id, organization_id, rule, user_id, channel, key, due_at) VALUES "
        "(gen_random_uuid(), 'acme', 'weekly', %s, 'email', %s, now() + interval '1 day') RETURNING id) "
        "INSERT INTO digest_items (digest_id, event_id, data, at) SELECT id, 'e1', %s::jsonb, now() FROM d",
        (USER, MARK, orjson.dumps({"name": MARK}).decode()),
    )
    await pool.execute("CREATE TABLE IF NOT EXISTS notification_history_365_test PARTITION OF notification_history_365 DEFAULT")
    await pool.execute(
        "INSERT INTO notification_history (kept_days, id, organization_id, status, channel, attempts, attempts_max, unknowns, "
        "created_at, updated_at, user_id, recipient, payload, idempotency_key, decisions, steps) "
        "VALUES (365, %s, 'acme', 'delivered', 'email', 1, 8, 0, now(), now(), %s, %s, %s::jsonb, %s, '[]', '[]')",
        (house.surface.services.new_id(), USER, ANCIENT_MAIL, orjson.dumps({"text": MARK}).decode(), MARK),
    )
    await contacts.change(pool, ACME, [contacts.Wanted(Channel.EMAIL, ANCIENT_MAIL, ContactStatus.BOUNCED)], None)
    return ids


async def test_after_an_erasure_no_column_of_any_table_has_a_trace_and_the_counts_stay(house: House) -> None:
    ids = await everything(house)
    assert {"notifications.payload", "notification_history.recipient", "digest_items.data", "contacts.note", "users.id",
            "notifications.plan", "notifications.request_hash", "cap_times.user_id"} <= set(await house.traces())  # fmt: skip
    before = await house.count("notifications") + await house.count("notification_history")

    status, answer = await house.erase()

    assert (status, answer) == (
        200,
        {"status": "erased", "users": 1, "contact_points": 3, "preferences": 1, "digests": 1, "notifications": 5, "canceled": 2,
         "sending": 0},
    )  # fmt: skip
    assert await house.traces() == ["erasures.user_id"]
    await house.settle()
    assert await house.traces() == []
    assert await house.count("notifications") + await house.count("notification_history") == before
    assert {name: (await house.row(id))[0] for name, id in ids.items()} == {
        "delivered": "delivered", "failed": "failed", "queued": "canceled", "scheduled": "canceled",
    }  # fmt: skip
    assert (await house.row(ids["queued"]))[1] == "erased"
    ((organization_id, told),) = house.surface.dispatch.canceled
    assert (organization_id, {id for id, _ in told}) == (ACME, {ids["queued"], ids["scheduled"]})
    assert house.surface.dispatch.cancel_reasons == ["erased"]
    assert await house.count("dead_letters") == 0


async def test_a_suppression_survives_without_the_address(house: House) -> None:
    await everything(house)
    await house.erase()

    for recipient, status in ((SECOND_MAIL, ContactStatus.COMPLAINED), (OLD_MAIL, ContactStatus.BOUNCED),
                              (ANCIENT_MAIL, ContactStatus.BOUNCED)):  # fmt: skip
        found = await contacts.find(house.pool, ACME, Channel.EMAIL, recipient.upper())
        assert found is not None
        assert (found.contact.status, found.recipient, found.note) == (status, "", None)


async def test_an_erasure_may_be_repeated_and_somebody_unknown_be_erased(house: House) -> None:
    await everything(house)
    assert (await house.erase())[0] == 200

    status, answer = await house.erase()

    assert (status, answer["status"]) == (200, "erased")
    assert not any(value for name, value in answer.items() if name != "status")


async def test_nobody_else_loses_anything(house: House) -> None:
    other = Desk(house.surface, "other")
    await other.put(f"/{USER}", {"contact_points": {"email": ["namesake@example.org"]}})
    await house.desk.put("/eve", {"contact_points": {"email": ["eve@example.org"]}})
    eves, nobodys = await house.accept("eve@example.org", "eve"), await house.accept("guest@example.org", None)

    await house.erase()
    await house.settle()

    assert (await other.get(f"/{USER}"))["contact_points"]["email"][0]["recipient"] == "namesake@example.org"
    assert (await house.desk.get("/eve"))["contact_points"]["email"][0]["recipient"] == "eve@example.org"
    assert [await house.row(id) for id in (eves, nobodys)] == [
        ("queued", None, "eve@example.org"), ("queued", None, "guest@example.org"),
    ]  # fmt: skip


async def test_what_is_being_sent_ends_and_is_blanked_then_and_never_sent_again(house: House) -> None:
    ends = [
        (OutcomeClass.DELIVERED, "accepted", Status.DELIVERED, "delivered"),
        (OutcomeClass.SUPPRESS, "mailbox_gone", Status.FAILED, "failed"),
        (OutcomeClass.SOFT, "http_503", Status.QUEUED, "canceled"),
        (OutcomeClass.UNKNOWN, "timeout", Status.QUEUED, "canceled"),
    ]
    begun = [await house.begin(await house.accept(f"{n}.{MARK}@example.org")) for n in range(len(ends))]

    assert (await house.erase())[1]["sending"] == len(ends)
    assert (await house.erase())[0] == 202
    for delivery, (kind, code, status, _) in zip(begun, ends, strict=True):
        await house.end(delivery, kind, code, status)
        if status is Status.QUEUED:  # whoever claims it before it is looked at again gives it up: it has expired
            (again,) = (await house.store.gate([delivery.id], (), again=False)).values()
            ((now_s,),) = await house.pool.fetch("SELECT extract(epoch FROM now())::float8")
            assert (again.deliveries[0].expires_at_s or now_s) < now_s
            assert await house.store.hand_back(ACME, {delivery.id: again.deliveries[0].attempt}) == [delivery.id]
    await house.settle()

    assert [(await house.row(delivery.id))[::2] for delivery in begun] == [(ends_as, "") for *_, ends_as in ends]
    assert await house.traces() == []
    assert await house.count("erasures") == 0


async def test_an_erasure_is_remembered_while_something_is_still_being_sent(house: House) -> None:
    delivery = await house.begin(await house.accept())
    await house.erase()

    await house.settle()
    assert await house.count("erasures") == 1
    await house.end(delivery, OutcomeClass.DELIVERED, "accepted", Status.DELIVERED)
    await house.settle()

    assert await house.traces() == []


async def test_what_was_on_its_way_into_the_store_is_found_later(house: House) -> None:
    await house.erase()
    late = await house.accept()
    await count_one(house)

    await house.settle()

    assert await house.row(late) == ("canceled", "erased", "")
    assert await house.traces() == []


async def test_whoever_bears_the_same_id_later_keeps_what_is_theirs(house: House) -> None:
    await house.accept()
    await house.erase()
    await house.desk.put(f"/{USER}", {"contact_points": {"email": ["new@example.org"]}})
    await house.desk.put(f"/{USER}/preferences/offers/email", {"allowed": False})
    theirs = await house.accept("new@example.org")

    await house.settle()

    assert await house.row(theirs) == ("queued", None, "new@example.org")
    assert len((await house.desk.get(f"/{USER}/preferences"))["preferences"]) == 1
    assert await house.count("erasures") == 0


async def test_a_report_that_comes_in_later_counts_and_brings_no_address_back(house: House) -> None:
    ids = await everything(house)
    await house.erase()
    feedback = PostgresFeedback(house.pool)
    told = Feedback("e1", FeedbackKind.COMPLAINED, "spam", 1_800_000_000.0, notification_id=ids["delivered"], recipient=MAIL)
    untold = Feedback("e2", FeedbackKind.BOUNCED, "gone", 1_800_000_000.0, notification_id=ids["failed"])
    taken = await feedback.take([Report(ACME, CONFIG, "sendgrid", Channel.EMAIL, each) for each in (told, untold)])
    await house.settle()

    assert [change.status for change in taken.contacts] == [ContactStatus.COMPLAINED]
    assert await house.traces() == []
    assert await house.count("contacts", "address = contact_address('email', '')") == 0


async def test_very_many_notifications_go_in_steps_and_the_rest_later(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(erasing, "ROWS_MAX", 2)
    for _ in range(5):
        await house.accept()

    done = await erasing.erase(house.pool, ACME, USER, steps_max=1)
    assert (done.notifications, len(done.canceled), done.is_whole) == (2, 2, False)
    await house.settle()

    assert await house.count("notifications", "status = 'canceled' AND recipient = ''") == 5
    assert await house.count("erasures") == 0


async def test_all_that_is_kept_of_a_person_is_exported_page_by_page(house: House) -> None:
    ids = await everything(house)

    first = await house.desk.get(f"/{USER}/export?page_size=3")
    second = await house.desk.get(f"/{USER}/export?page_size=3&after={first['notifications']['page']['next']}")

    assert first["user"] == await house.desk.get(f"/{USER}")
    assert first["preferences"] == (await house.desk.get(f"/{USER}/preferences"))["preferences"]
    assert list(first["cap_times"]) == ["daily"]
    assert [(item["rule"], item["data"]) for item in first["digests"]] == [("weekly", {"name": MARK})]
    items: Sequence[Mapping[str, Any]] = first["notifications"]["items"] + second["notifications"]["items"]
    assert [item["id"] for item in items] == sorted((item["id"] for item in items), reverse=True)
    by_id = {item["id"]: item for item in items}
    assert len(items) == 5
    assert set(ids.values()) < by_id.keys()
    assert all(MARK in str(item["payload"]) for item in items)
    assert [step["code"] for step in by_id[ids["failed"]]["steps"]] == ["bounced"]
    statuses = {known["recipient"]: known["status"] for page in (first, second) for known in page["contacts"]}
    assert statuses == {SECOND_MAIL: "complained", OLD_MAIL: "bounced", ANCIENT_MAIL: "bounced"}
    assert "user" not in second


async def test_of_who_is_not_known_and_of_others_nothing_is_exported(house: House) -> None:
    await everything(house)
    other = Desk(house.surface, "other")
    await other.put("/x", {})

    assert_problem(await other.call("GET", f"/{USER}/export"), 404, "user_not_found")
    assert_problem(await house.desk.call("GET", "/nobody/export"), 404, "user_not_found")
    await house.erase()
    assert_problem(await house.desk.call("GET", f"/{USER}/export"), 404, "user_not_found")


async def test_exporting_and_erasing_need_their_scopes(surface: Surface) -> None:
    reader, writer = Desk(surface, scopes=(Scope.USERS_READ,)), Desk(surface, scopes=(Scope.USERS_WRITE,))

    assert_problem(await reader.call("POST", "/ada/erase"), 403, "scope_missing")
    assert_problem(await writer.call("GET", "/ada/export"), 403, "scope_missing")


async def erase_address(house: House, recipient: str, **fields: Any) -> Any:
    headers = await house.surface.authorization()
    document = {"channel": "email", "recipient": recipient, **fields}
    return await house.surface.client.post("/v1/orgs/acme/erase", json=document, headers=headers)


async def test_whoever_is_no_user_is_erased_by_address(house: House) -> None:
    ids = await everything(house)
    guests = [await house.accept(f"guest.{MARK}@example.org", None) for _ in range(3)]
    begun = await house.begin(guests[2])
    unmarked = {"payload": {"text": "Hi."}, "idempotency_key": None, "request_hash": b"hash".hex()}
    other = await house.accept("other@example.org", None, **unmarked)
    await house.erase()

    first = await erase_address(house, f"GUEST.{MARK}@example.org")
    await house.end(begun, OutcomeClass.SOFT, "http_503", Status.QUEUED)
    second = await erase_address(house, f"guest.{MARK}@example.org")
    await house.settle()

    assert (first.status_code, second.status_code) == (202, 200)
    assert first.json() == {"contact_points": 0, "notifications": 2, "canceled": 2, "left": 1, "after": None}
    assert second.json() == {"contact_points": 0, "notifications": 1, "canceled": 1, "left": 0, "after": None}
    assert await house.traces() == []
    assert (await house.row(other))[2] == "other@example.org"
    assert (await house.row(ids["delivered"]))[0] == "delivered"


async def test_an_address_is_looked_for_in_history_and_among_the_points_of_users(house: House) -> None:
    await everything(house)

    assert (await erase_address(house, ANCIENT_MAIL)).json()["notifications"] == 1
    assert (await erase_address(house, SECOND_MAIL)).json()["contact_points"] == 1

    assert await house.count("notification_history", "recipient = '' AND user_id IS NULL AND payload = '{}'") == 1
    assert [p["recipient"] for p in (await house.desk.get(f"/{USER}"))["contact_points"]["email"]] == [MAIL]
    found = await contacts.find(house.pool, ACME, Channel.EMAIL, SECOND_MAIL)
    assert found is not None
    assert (found.contact.status, found.recipient, found.note) == (ContactStatus.COMPLAINED, "", None)


async def test_very_many_notifications_are_walked_through_in_several_requests(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasing_addresses, "SEEN_MAX", 2)
    monkeypatch.setattr(person_rights, "ADDRESS_STEPS_MAX", 2)
    for _ in range(7):
        await house.accept(user_id=None)

    erased, after = 0, None
    for _ in range(4):
        answer = (await erase_address(house, MAIL, **({} if after is None else {"after": after}))).json()
        erased, after = erased + answer["notifications"], answer["after"]
        if after is None:
            break

    assert (erased, after) == (7, None)
    for wrong in ("x", "n:", "n:1", "x:00000000-0000-0000-0000-000000000000", 7):
        assert_problem(await erase_address(house, MAIL, after=wrong), 422, "field_invalid")
    assert_problem(await erase_address(house, "no address"), 422, "field_invalid")
