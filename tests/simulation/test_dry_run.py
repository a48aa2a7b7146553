"""A dry run says what a real one does: the same chains for the same people, and nothing is sent that was not promised."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from random import Random
from typing import Any

import pytest
import trio
import trio.testing

from actors.acceptor_answers import rfc3339
from beside import Result, beside
from dispatcher.decisions import Code, step_of
from dispatcher.feedback.feedback import FeedbackKind
from event_world import NOW, ORG, PLANNED_STEPS, Desk, setup_of
from random_setups import Drawn, drawn

WORLDS = 1_000
STRETCH = 500
COLUMNS = ("channel", "recipient", "send_at", "expires_at", "locale")


def opened(world: Drawn) -> Desk:
    """A desk in that world."""
    desk = Desk()
    desk.setup = setup_of(world.definitions, world.default_locale)
    desk.templates = dict(world.templates)
    desk.lanes = dict(world.lanes)
    for user in world.users:
        desk.user(user)
    for channel, recipient, kind in world.contacts:
        row = desk.database.make_contact(ORG, channel, recipient)
        row.contact = row.contact.after(FeedbackKind(kind), "reported", NOW)
    return desk


def promised(shown: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """What a dry run says will be inserted."""
    return sorted(
        (str(one["decisions"]), *(one[name] for name in COLUMNS), str(one["payload"]))
        for one in shown["notifications"]
        if one["outcome"] in ("send", "schedule")
    )


def inserted(desk: Desk, seen: set[str]) -> list[tuple[Any, ...]]:
    """What was inserted since."""
    fresh = [row for row in desk.rows() if row.id not in seen]
    seen.update(row.id for row in fresh)
    return sorted(
        (
            str(list(row.decisions or ())),
            row.channel,
            row.recipient,
            None if row.next_retry_at_s is None else rfc3339(row.next_retry_at_s),
            None if row.expires_at_s is None else rfc3339(row.expires_at_s),
            row.locale,
            str(row.payload),
        )
        for row in fresh
    )


async def compare(world: Drawn, codes: Counter[str]) -> None:
    """Each event and notification of a world, first dry and then in earnest."""
    desk = opened(world)
    seen: set[str] = set()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(desk.admitting.run)
        for event in world.events:
            shown = await desk.explain(event, with_payload=True)
            codes.update(decision["code"] for one in shown["notifications"] for decision in one["decisions"])
            before = len(desk.database.events)
            if "refused" in shown:
                assert (await desk.refused(event)).document() == shown["refused"]
                assert (inserted(desk, seen), len(desk.database.events)) == ([], before)
                continue
            answer = await desk.answer(event)
            assert inserted(desk, seen) == promised(shown)
            outcomes = Counter(one["outcome"] for one in shown["notifications"])
            assert answer["matched"] == shown["matched"]
            if answer["matched"]:
                skips = [one for one in shown["notifications"] if not one.get("code", "rule_").startswith("rule_")]
                assert answer["skips"] == [{"rule": o["rule"], "channel": o["channel"], "code": o["code"]} for o in skips]
                assert answer["notifications"] == outcomes["send"] + outcomes["schedule"]
                assert len(answer.get("digests", ())) == outcomes["digest"]
            else:
                assert answer["reason"] == shown["reason"]
        for item in world.items:
            await compare_item(desk, item, codes, seen)
        nursery.cancel_scope.cancel()


async def compare_item(desk: Desk, item: Mapping[str, Any], codes: Counter[str], seen: set[str]) -> None:
    """The same of a notification that is handed in."""
    shown = await desk.explain_item(item)
    one = shown["notification"]
    codes.update(decision["code"] for decision in one["decisions"])
    if "refused" in shown or one["outcome"] == "skip":
        problem = await desk.refused_item(item)
        assert problem.code == shown["refused"]["code"] if "refused" in shown else one["code"] in _codes_of(problem.code)
        assert inserted(desk, seen) == []
    else:
        answer = await desk.accept_item(item)
        assert inserted(desk, seen) == promised({"notifications": [one]})
        assert (answer["status"], answer.get("send_at")) == ("scheduled" if one["send_at"] else "queued", one["send_at"])


def _codes_of(problem: str) -> set[str]:
    """The codes of decisions that a problem may stand for."""
    several = {
        "recipient_suppressed": {"contact_bounced", "contact_complained", "contact_unsubscribed", "contact_invalid"},
        "provider_missing": {"provider_none"},
        "template_unknown": {"template_none"},
    }
    return several.get(problem, {"template_failed"} if problem.startswith("template_") else {problem})


def stretch(first: int) -> Counter[str]:
    """The worlds from that seed on; returns how often each code came up."""
    codes: Counter[str] = Counter()

    async def all_of_them() -> None:
        for seed in range(first, first + STRETCH):
            try:
                await compare(drawn(Random(f"dry run {seed}")), codes)
            except BaseException as error:
                error.add_note(f"world {seed}")
                raise

    trio.run(all_of_them, clock=trio.testing.MockClock(autojump_threshold=0))
    return codes


@pytest.mark.parametrize("first", range(0, WORLDS, STRETCH))
@beside(stretch)
async def test_a_dry_run_and_a_real_run_agree_and_reach_every_code(first: int, result: Result) -> None:
    codes: Counter[str] = result()

    expected = {code.value for code in Code if step_of(code) in PLANNED_STEPS}
    assert expected - codes.keys() == set()
