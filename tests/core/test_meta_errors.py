"""Every code that Meta names, one by one, through ``classify``: the table is written a second time here, by class."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from dispatcher.http_message import HttpResponse
from dispatcher.outcome import Outcome, OutcomeClass, RateScope
from dispatcher.providers.meta_errors import ERRORS
from meta_world import meta
from twilio_world import NOW

CLASSES: dict[OutcomeClass, str] = {
    OutcomeClass.MISCONFIGURED: "0 3 10 190 368 131031 131042 131037 131045 131005 133010 33",
    OutcomeClass.RATE_LIMITED: "4 80007 130429 131056 131048 131064",
    OutcomeClass.SOFT: "131057 131016 131000 1 2 135000 131049 132015 131052 131053",
    OutcomeClass.SUPPRESS: "131026",
    OutcomeClass.HARD: """
        131021 131030 130497 131047 131050 130472 132000 132001 132005 132007 132008 132012 132016 100 131008 131009 131051
    """,
}
PERMISSIONS = range(200, 300)


def codes() -> Iterator[tuple[int, OutcomeClass]]:
    for kind, numbers in CLASSES.items():
        for number in numbers.split():
            yield int(number), kind


def answered(code: int, status: int = 400, subcode: int | None = None) -> Outcome:
    error = {
        "message": f"(#{code}) not to +15551230000",
        "type": "OAuthException",
        "code": code,
        "error_data": {"messaging_product": "whatsapp", "details": "+15551230000"},
        "error_subcode": subcode,
        "fbtrace_id": "A1",
    }
    return meta().classify(HttpResponse(status, (), orjson.dumps({"error": error})), NOW)


@pytest.mark.parametrize(("code", "kind"), list(codes()))
def test_every_code_ends_an_attempt_in_its_way(code: int, kind: OutcomeClass) -> None:
    outcome = answered(code)

    assert outcome.kind is kind
    assert outcome.code.endswith(f"_{code}")
    assert len(outcome.code) <= 64
    assert ERRORS.explanations[outcome.code]


@pytest.mark.parametrize(("code", "kind"), list(codes()))
def test_the_code_decides_whatever_the_status(code: int, kind: OutcomeClass) -> None:
    assert {answered(code, status).kind for status in (200, 400, 401, 403, 404, 429, 500, 503)} == {kind}


def test_every_permission_is_a_matter_of_configuration() -> None:
    assert {answered(code, 403).kind for code in PERMISSIONS} == {OutcomeClass.MISCONFIGURED}
    assert answered(200).code == "permission_200"


def test_no_code_is_in_the_table_that_is_not_here() -> None:
    assert set(ERRORS.rows) == {code for code, _ in codes()}
    assert len(list(codes())) == len(ERRORS.rows)


@pytest.mark.parametrize(
    ("code", "kind", "name"),
    [
        (80001, OutcomeClass.RATE_LIMITED, "use_case_rate_80001"),
        (130999, OutcomeClass.HARD, "message_130999"),
        (131999, OutcomeClass.HARD, "message_131999"),
        (132999, OutcomeClass.HARD, "template_132999"),
        (133004, OutcomeClass.MISCONFIGURED, "registration_133004"),
        (134011, OutcomeClass.HARD, "message_134011"),
        (135001, OutcomeClass.SOFT, "generic_135001"),
    ],
)
def test_a_code_that_nobody_knows_yet_goes_by_its_range(code: int, kind: OutcomeClass, name: str) -> None:
    assert (answered(code).kind, answered(code).code) == (kind, name)


def test_a_fault_of_metas_own_is_never_blamed_on_the_message() -> None:
    assert answered(131999, 500).kind is OutcomeClass.SOFT
    assert answered(131999, 429).kind is OutcomeClass.RATE_LIMITED


@pytest.mark.parametrize(
    ("status", "kind"), [(400, OutcomeClass.HARD), (401, OutcomeClass.MISCONFIGURED), (503, OutcomeClass.SOFT)]
)
def test_a_code_out_of_all_ranges_goes_by_the_status(status: int, kind: OutcomeClass) -> None:
    assert answered(2_000_000, status) == Outcome(kind, f"http_{status}")
    assert answered(-1, status) == Outcome(kind, f"http_{status}")


def test_a_success_with_an_error_in_it_is_none() -> None:
    assert answered(2_000_000, 200) == Outcome(OutcomeClass.HARD, "refused")


def test_a_number_that_is_not_there_is_told_from_a_bad_parameter() -> None:
    """Otherwise a wrong phone_number_id would bury every message."""
    assert answered(100, subcode=33) == answered(33)
    assert answered(100, subcode=2494010).kind is OutcomeClass.HARD


def test_a_pair_that_is_too_busy_slows_nobody_else() -> None:
    assert (answered(131056).scope, answered(131056).wait_s) == (RateScope.RECIPIENT, 6)
    assert {answered(code).scope for code in (4, 80007, 130429, 131048, 131064)} == {RateScope.ACCOUNT}


def test_what_is_worth_one_more_try_gets_one() -> None:
    assert {answered(code).attempts_max for code in (135000, 131052, 131053)} == {2}
    assert {answered(code).attempts_max for code in (131000, 131016, 1, 2)} == {None}


def test_waits_are_as_long_as_what_they_wait_for() -> None:
    assert answered(131049).wait_s == 86_400
    assert answered(132015).wait_s == 3600
    assert {answered(code).retry_after_s for code in (131048, 131064)} == {3600}


def test_a_country_or_a_template_never_stops_the_whole_account() -> None:
    narrow = (130497, 131030, 132000, 132001, 132015, 132016)

    assert OutcomeClass.MISCONFIGURED not in {answered(code).kind for code in narrow}


def test_every_code_stands_in_the_documents() -> None:
    folder = Path(__file__).parents[2] / "docs" / "providers"
    text = "".join((folder / f"{name}.md").read_text() for name in ("meta-whatsapp",))
    named = {row.split("|")[1].strip() for row in text.splitlines() if row.startswith("| ")}
    codes_named = {code for cell in named for code in cell.split(", ")}

    assert {str(code) for code in ERRORS.rows} <= codes_named
