"""Every code that Twilio names, one by one, through ``classify``: the table is written a second time here, by class."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from dispatcher.http_message import HttpResponse
from dispatcher.outcome import Outcome, OutcomeClass, RateScope
from dispatcher.providers.twilio_errors import ERRORS
from twilio_world import NOW, sms

DAY_S = 86_400.0
CLASSES: dict[OutcomeClass, str] = {
    OutcomeClass.SUPPRESS: "21211 21217 21268 21614 21635 21610 30005 30006 63003 63024 63014 63033",
    OutcomeClass.HARD: """
        21612 21408 21602 21604 21605 21609 21617 21618 21619 21620 21621 21623 21654 21655 21656 21664 30004 30450 30007 30010
        30019 30036 63005 63013 63019 63021 63026 63027 63028 63029 63030 63034 63040 63042 63016 63032 63049
    """,
    OutcomeClass.MISCONFIGURED: """
        21212 21601 21603 21606 21607 21608 21616 21659 21660 21661 21701 21703 21704 21705 21910 20003 20005 20403 20404 30002
        30018 30024 30032 30033 30034 30035 63001 63002 63007 63008 63015 63020 63022 63051
    """,
    OutcomeClass.RATE_LIMITED: "21611 14107 20429 30001 30022 30023 30027 63017 63018 63038",
    OutcomeClass.SOFT: "20500 20503 30003 30008 30017 63041 63009 63010 63012 63023 63037",
    OutcomeClass.UNKNOWN: "30410",
}


def codes() -> Iterator[tuple[int, OutcomeClass]]:
    for kind, numbers in CLASSES.items():
        for number in numbers.split():
            yield int(number), kind


def answered(code: int, status: int = 400, **headers: str) -> Outcome:
    body = orjson.dumps({"code": code, "message": "for +15551230000", "more_info": "…", "status": status})
    fields = tuple((name.replace("_", "-").encode(), value.encode()) for name, value in headers.items())
    return sms().classify(HttpResponse(status, fields, body), NOW)


@pytest.mark.parametrize(("code", "kind"), list(codes()))
def test_every_code_ends_an_attempt_in_its_way(code: int, kind: OutcomeClass) -> None:
    outcome = answered(code)

    assert outcome.kind is kind
    assert outcome.code.endswith(f"_{code}")
    assert len(outcome.code) <= 64
    assert ERRORS.explanations[outcome.code]


@pytest.mark.parametrize(("code", "kind"), list(codes()))
def test_a_code_counts_more_than_the_status_it_comes_with(code: int, kind: OutcomeClass) -> None:
    assert {answered(code, status).kind for status in (400, 401, 403, 404, 429, 500, 503)} == {kind}


def test_no_code_is_in_the_table_that_is_not_here() -> None:
    assert set(ERRORS.rows) == {code for code, _ in codes()}
    assert len(list(codes())) == len(set(codes())) == len(ERRORS.rows)


@pytest.mark.parametrize(
    ("code", "kind", "name"),
    [
        (20001, OutcomeClass.MISCONFIGURED, "api_20001"),
        (20999, OutcomeClass.MISCONFIGURED, "api_20999"),
        (21000, OutcomeClass.HARD, "message_21000"),
        (21262, OutcomeClass.HARD, "message_21262"),
        (30000, OutcomeClass.HARD, "delivery_30000"),
        (30999, OutcomeClass.HARD, "delivery_30999"),
        (63099, OutcomeClass.HARD, "channel_63099"),
        (68001, OutcomeClass.HARD, "channel_68001"),
    ],
)
def test_a_code_that_nobody_knows_yet_goes_by_its_range(code: int, kind: OutcomeClass, name: str) -> None:
    assert (answered(code).kind, answered(code).code) == (kind, name)


@pytest.mark.parametrize("code", [21262, 30999, 63099])
def test_a_fault_of_twilios_own_is_never_blamed_on_the_message(code: int) -> None:
    assert answered(code, 500).kind is OutcomeClass.SOFT
    assert answered(code, 429).kind is OutcomeClass.RATE_LIMITED


@pytest.mark.parametrize(
    ("status", "kind"), [(400, OutcomeClass.HARD), (401, OutcomeClass.MISCONFIGURED), (503, OutcomeClass.SOFT)]
)
def test_a_code_out_of_all_ranges_goes_by_the_status(status: int, kind: OutcomeClass) -> None:
    assert answered(11200, status) == Outcome(kind, f"http_{status}")


def test_a_pair_that_is_too_busy_slows_nobody_else() -> None:
    assert answered(14107).scope is RateScope.RECIPIENT
    assert {answered(code).scope for code in (21611, 20429, 30001, 30022, 63017)} == {RateScope.ACCOUNT}


def test_what_is_worth_one_more_try_gets_one() -> None:
    assert answered(30008).attempts_max == 2
    assert {answered(code).attempts_max for code in (30003, 30017, 63009)} == {None}


def test_waits_are_as_long_as_what_they_wait_for() -> None:
    assert answered(30003).wait_s == 1800
    assert answered(63041).wait_s == 3600
    assert {answered(code).retry_after_s for code in (30023, 30027, 63038)} == {DAY_S}
    assert answered(20429).retry_after_s is None


def test_a_hint_of_twilios_lengthens_the_tables_own() -> None:
    assert answered(20429, 429, retry_after="7").retry_after_s == 7
    assert answered(21611, retry_after="7").retry_after_s == 60
    assert answered(21611, retry_after="70").retry_after_s == 70


def test_a_region_or_a_template_never_stops_the_whole_account() -> None:
    """Misconfigured pauses everything the configuration sends."""
    narrow = (21408, 63027, 63028, 63040, 63041, 63042)

    assert OutcomeClass.MISCONFIGURED not in {answered(code).kind for code in narrow}


def test_every_code_stands_in_the_documents() -> None:
    folder = Path(__file__).parents[2] / "docs" / "providers"
    text = "".join((folder / f"{name}.md").read_text() for name in ("twilio-sms", "twilio-whatsapp"))
    named = {row.split("|")[1].strip() for row in text.splitlines() if row.startswith("| ")}
    codes_named = {code for cell in named for code in cell.split(", ")}

    assert {str(code) for code in ERRORS.rows} <= codes_named
