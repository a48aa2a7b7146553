"""Failures forced exactly where they hurt most, each judged by the same checker as a thousand random ones.

The numbers are those of the catalogue of failures in docs/guarantees.md.
"""

from __future__ import annotations

import pytest

from actors.memory import Moment
from dispatcher.model import Channel, DeadLetterReason, Status
from system_process import POSTGRES, REDIS, Fault, Variant
from system_scenarios import (
    Ended,
    Play,
    a_poisonous_notification,
    accepted_for_later_by_one_who_dies,
    an_answer_is_swallowed,
    an_answer_is_swallowed_by_a_provider_that_can_be_asked,
    an_answer_never_comes_where_doubts_are_held,
    canceled_while_they_are_sent,
    cancelled_during_the_claim,
    clock_jumps,
    configured_again_and_again,
    drained,
    drained_after_a_crash_while_redis_is_away,
    drained_and_killed,
    drained_during_a_flush,
    handed_on_and_on,
    it_wanted_to_sleep_and_redis_went_away,
    killed_between_release_and_push,
    perform,
    redis_comes_back_older,
    redis_is_away_for_a_moment,
    redis_is_full,
    redis_restarts_empty,
    stopped,
    stopped_during_a_call,
    struck,
    the_actor_crashes_during_a_call,
    the_actor_crashes_while_its_provider_is_asked,
    the_provider_is_down,
    the_provider_is_down_and_its_channel_handed_over,
    two_share_the_work,
)

BOTH = pytest.mark.parametrize("channel", [Channel.EMAIL, Channel.SMS], ids=["keys are honoured", "keys are ignored"])


def sound(play: Play, variant: Variant | None = None) -> Ended:
    """Perform a play after which every rule must hold."""
    ended = perform(play, variant=variant)
    assert ended.broken == []
    return ended


def facts(ended: Ended) -> list[tuple[Status, int, int, int, list[str]]]:
    """Of each notification: its end, attempts, marks, effects, and who called for it."""
    return [(row.status, row.attempts, row.unknowns, ended.effects(row), ended.callers_of(row)) for row in ended.rows]


def facts_of_the_poison(ended: Ended) -> tuple[DeadLetterReason, list[str]]:
    """Why it was given up, and who called for it. The others must be delivered, with a mark for each effect too many."""
    (poison,) = [row for row in ended.rows if row.payload["text"] == "poison"]
    others = [row for row in ended.rows if row is not poison]
    assert [row.status for row in others] == [Status.DELIVERED] * 3
    assert all(1 <= ended.effects(row) <= 1 + row.unknowns for row in others)
    return ended.world.database.dead_letters[poison.id].reason, ended.callers_of(poison)


# --- a process dies ---------------------------------------------------------------------------------------------------


@BOTH
def test_killed_between_claim_and_gate_it_is_sent_once_by_another(channel: Channel) -> None:
    """Nothing was intended, so nothing is marked (scenario 1)."""
    ended = sound(struck(REDIS, "claim", Moment.AFTER, Fault.KILL, channel))

    assert facts(ended) == [(Status.DELIVERED, 1, 0, 1, ["p2"])]


@BOTH
def test_killed_between_gate_and_call_it_is_sent_once_and_marked_because_nobody_can_know(channel: Channel) -> None:
    """(Scenario 2.)"""
    ended = sound(struck(POSTGRES, "gate", Moment.AFTER, Fault.KILL, channel))

    assert facts(ended) == [(Status.DELIVERED, 2, 1, 1, ["p2"])]
    assert ended.rows[0].attempts_max == ended.world.config.dispatch.attempts_max + 1


@BOTH
def test_killed_after_the_provider_took_it_and_before_the_record_only_an_ignored_key_sends_it_again(channel: Channel) -> None:
    """(Scenario 3.)"""
    ended = sound(struck(POSTGRES, "record", Moment.BEFORE, Fault.KILL, channel))

    effects = 1 if channel is Channel.EMAIL else 2
    assert facts(ended) == [(Status.DELIVERED, 2, 1, effects, ["p1", "p2"])]


@BOTH
def test_killed_after_the_record_and_before_the_settlement_nobody_calls_again(channel: Channel) -> None:
    """(Scenario 4.)"""
    ended = sound(struck(REDIS, "settle", Moment.BEFORE, Fault.KILL, channel))

    assert facts(ended) == [(Status.DELIVERED, 1, 0, 1, ["p1"])]


@pytest.mark.parametrize("after_s", [0.0, 0.5])
def test_a_poisonous_notification_is_given_up_after_five_processes_and_the_others_are_delivered(after_s: float) -> None:
    """Also when it kills at once, with all others under way (scenario 20)."""
    ended = sound(a_poisonous_notification(after_s, Channel.EMAIL))

    assert facts_of_the_poison(ended) == (DeadLetterReason.POISON, [f"p{n}" for n in range(1, 7)])


@pytest.mark.parametrize("after_s", [0.0, 0.5])
def test_where_keys_are_ignored_a_poisonous_notification_is_held_after_two_processes(after_s: float) -> None:
    """It may have been sent twice by then (scenario 20)."""
    ended = sound(a_poisonous_notification(after_s, Channel.SMS))

    assert facts_of_the_poison(ended) == (DeadLetterReason.UNKNOWN, ["p1", "p2"])


# --- an answer is lost ------------------------------------------------------------------------------------------------


def test_a_swallowed_answer_is_marked_and_only_an_ignored_key_sends_it_again() -> None:
    """(Scenario 5.)"""
    ended = sound(an_answer_is_swallowed)

    effects = {row.channel: ended.effects(row) for row in ended.rows}
    assert [fact[:3] for fact in facts(ended)] == [(Status.DELIVERED, 2, 1)] * 2
    assert effects == {Channel.EMAIL: 1, Channel.SMS: 2}


def test_an_id_whose_claim_was_never_answered_comes_back_when_its_lease_ends() -> None:
    """(Scenario 10.)"""
    ended = sound(struck(REDIS, "claim", Moment.AFTER, Fault.LOST, another=False))

    assert facts(ended) == [(Status.DELIVERED, 1, 0, 1, ["p1"])]


def test_an_id_claimed_for_somebody_who_was_cancelled_meanwhile_comes_back_when_its_lease_ends() -> None:
    """(Scenario 11.)"""
    ended = sound(cancelled_during_the_claim)

    assert ended.world.processes[0].left_well is False
    assert facts(ended) == [(Status.DELIVERED, 1, 0, 1, ["p2"])]


@pytest.mark.parametrize("operation", ["gate", "record", "insert"])
def test_a_commit_whose_answer_was_lost_is_repeated_without_harm(operation: str) -> None:
    """(Scenario 22.)"""
    ended = sound(struck(POSTGRES, operation, Moment.AFTER, Fault.LOST, another=False))

    assert facts(ended) == [(Status.DELIVERED, 1, 0, 1, ["p1"])]


# --- a process stands still -------------------------------------------------------------------------------------------


def test_stopped_before_its_call_beyond_its_lease_it_calls_no_more() -> None:
    """(Scenario 7.)"""
    ended = sound(stopped(POSTGRES, "gate", Moment.AFTER))

    assert facts(ended) == [(Status.DELIVERED, 2, 1, 1, ["p2"])]


def test_stopped_during_a_call_beyond_its_lease_the_next_in_line_is_not_called() -> None:
    """(Scenario 7.)"""
    ended = sound(stopped_during_a_call)

    assert [ended.effects(row) for row in ended.rows].count(2) <= 1
    assert {row.status for row in ended.rows} == {Status.DELIVERED}


def test_stopped_after_its_call_beyond_its_lease_its_outcome_changes_nothing() -> None:
    """(Scenario 7.)"""
    ended = sound(stopped(POSTGRES, "record", Moment.BEFORE))

    assert facts(ended) == [(Status.DELIVERED, 2, 1, 2, ["p1", "p2"])]


# --- Redis ------------------------------------------------------------------------------------------------------------


def test_redis_may_restart_empty_while_ids_are_queued_in_flight_delayed_and_parked() -> None:
    """(Scenario 12.)"""
    ended = sound(redis_restarts_empty)

    assert {(status, marks, effects) for status, _, marks, effects, _ in facts(ended)} == {(Status.DELIVERED, 0, 1)}
    assert len(ended.rows) == 17


def test_redis_may_come_back_without_its_last_seconds() -> None:
    """(Scenario 13.)"""
    ended = sound(redis_comes_back_older)

    assert facts(ended) == [(Status.DELIVERED, 1, 0, 1, ["p1"])] * 6


def test_a_full_redis_still_claims_and_settles_and_what_it_refused_is_sent_too() -> None:
    """(Scenario 15.)"""
    ended = sound(redis_is_full)

    assert facts(ended) == [(Status.DELIVERED, 1, 0, 1, ["p1"])] * 6


def test_what_redis_did_not_take_is_pushed_as_soon_as_it_is_back_and_does_not_wait_for_the_janitor() -> None:
    ended = sound(redis_is_away_for_a_moment)

    assert [call.began_s < 10.0 for call in ended.world.network.calls] == [True] * 3


# --- clocks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset_s", [-300.0, 300.0])
@pytest.mark.parametrize("whose", [POSTGRES, REDIS, "p1"])
def test_a_wall_clock_may_jump_by_five_minutes(whose: str, offset_s: float) -> None:
    """What it costs is time, or a mark (scenario 34)."""
    ended = sound(clock_jumps(whose, offset_s))

    assert {row.status for row in ended.rows} == {Status.DELIVERED}
    assert len(ended.rows) == 18


# --- a process leaves -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("play", [drained, drained_during_a_flush], ids=["under load", "during a flush"])
def test_who_is_told_to_leave_ends_its_calls_and_hands_the_rest_over_unmarked(play: Play) -> None:
    """(Scenario 35.)"""
    ended = sound(play)

    assert ended.world.processes[0].left_well is True
    assert {(status, attempts, marks, effects) for status, attempts, marks, effects, _ in facts(ended)} == {
        (Status.DELIVERED, 1, 0, 1)
    }
    assert {caller for row in ended.rows for caller in ended.callers_of(row)} >= {"p1", "p2"}


def test_a_second_signal_is_a_crash_which_loses_nothing() -> None:
    """What was being sent is marked and rescued (scenario 35)."""
    ended = sound(drained_and_killed)

    marked = [row for row in ended.rows if row.unknowns]
    assert marked
    assert {(row.status, ended.effects(row)) for row in ended.rows if row not in marked} == {(Status.DELIVERED, 1)}


def test_who_leaves_after_a_crash_of_an_actor_still_announces_what_nobody_holds_any_more() -> None:
    ended = sound(drained_after_a_crash_while_redis_is_away)

    assert ended.world.processes[0].left_well is True
    assert facts(ended) == [(Status.DELIVERED, 1, 0, 1, ["p1"])]


# --- organizations and channels ---------------------------------------------------------------------------------------


def test_what_a_crashed_actor_held_is_taken_back_and_marked() -> None:
    ended = sound(the_actor_crashes_during_a_call)

    assert [(row.status, row.unknowns) for row in ended.rows] == [(Status.DELIVERED, 1), (Status.DELIVERED, 0)]


def test_after_a_crash_nothing_is_sent_although_the_provider_said_that_it_has_nothing() -> None:
    """It was taken back meanwhile, and is somebody else's to ask about."""
    ended = sound(the_actor_crashes_while_its_provider_is_asked)

    assert [(row.status, ended.effects(row), len(ended.callers_of(row))) for row in ended.rows] == [(Status.DELIVERED, 1, 2)]


def test_a_provider_that_is_down_is_asked_now_and_then() -> None:
    ended = sound(the_provider_is_down)

    assert len([call for call in ended.world.network.calls if call.reply.value == "soft"]) < 20


def test_a_channel_that_rests_goes_on_resting_in_other_hands() -> None:
    ended = sound(the_provider_is_down_and_its_channel_handed_over)

    last, then = ([call for call in ended.world.network.calls if call.process.name == name] for name in ("p1", "p2"))
    assert len(last) == ended.world.config.breaker.failures_in_a_row
    assert then[0].began_s >= last[-1].heard_s + ended.world.config.breaker.open_base_s / 2


def test_a_provider_that_can_be_asked_is_asked_and_sent_only_what_it_does_not_have() -> None:
    ended = sound(an_answer_is_swallowed_by_a_provider_that_can_be_asked)

    assert [fact[:1] + fact[2:4] for fact in facts(ended)] == [(Status.DELIVERED, 1, 1)] * 2
    assert sorted(len(ended.callers_of(row)) for row in ended.rows) == [1, 2]


def test_what_is_in_doubt_where_doubts_are_held_is_left_to_a_person() -> None:
    ended = sound(an_answer_never_comes_where_doubts_are_held)

    assert facts(ended) == [(Status.FAILED, 1, 1, 1, ["p1"])]
    assert ended.world.database.dead_letters[ended.rows[0].id].reason is DeadLetterReason.UNKNOWN


def test_a_channel_is_no_faster_with_two_processes_nor_handed_on_and_on() -> None:
    assert len({call.process.name for call in sound(two_share_the_work).world.network.calls}) == 1
    assert {call.process.name for call in sound(handed_on_and_on).world.network.calls} > {"p1", "p2", "p3"}


def test_tokens_left_behind_by_a_life_that_went_on_are_not_given_out_once_more() -> None:
    ended = sound(it_wanted_to_sleep_and_redis_went_away)

    assert {call.process.name for call in ended.world.network.calls} == {"p1", "p2"}


def test_a_channel_that_begins_anew_has_no_free_burst() -> None:
    sound(configured_again_and_again)


# --- what waits for its time ------------------------------------------------------------------------------------------


def test_what_was_accepted_for_later_by_a_process_that_died_is_sent_by_another() -> None:
    ended = sound(accepted_for_later_by_one_who_dies)

    assert facts(ended) == [(Status.DELIVERED, 1, 0, 1, ["p2"])]


def test_killed_between_the_release_and_the_push_it_is_sent_once_all_the_same() -> None:
    ended = sound(killed_between_release_and_push)

    assert facts(ended) == [(Status.DELIVERED, 1, 0, 1, ["p2"])]


def test_each_is_canceled_or_sent_and_never_both() -> None:
    ended = sound(canceled_while_they_are_sent)
    canceled = [row for row in ended.rows if row.status is Status.CANCELED]

    assert {row.status for row in ended.rows} == {Status.CANCELED, Status.DELIVERED}
    assert [row for row in canceled if ended.effects(row)] == []
