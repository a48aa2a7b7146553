"""Every answer that SendGrid documents, and what it means here; every code that a person may see has words."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from dispatcher.http_message import HttpResponse
from dispatcher.model import Channel, OrganizationId, ProviderConfig
from dispatcher.providers.sendgrid import SENDGRID, bind
from dispatcher.providers.sendgrid_errors import CREDITS_EXCEEDED, FIELDS, STATUSES

SETTINGS = {"from_email": "tickets@example.org"}
CONFIG = ProviderConfig("1", OrganizationId("acme"), Channel.EMAIL, "sendgrid", SETTINGS, {"api_key": "SG.hush"}, revision=1)


def error(message: str, field: str | None = None) -> bytes:
    return orjson.dumps({"errors": [{"message": message, "field": field, "help": None}]})


@pytest.mark.parametrize(
    ("status", "body", "kind", "code"),
    [
        (200, b"", "delivered", "validated"),
        (202, b"", "delivered", "accepted"),
        (400, error("Bad Request"), "hard", "http_400"),
        (400, error("Does not contain a valid address.", "personalizations.0.to.0.email"), "hard", "recipient_refused"),
        (400, error("There may be at most 1000 personalizations", "personalizations"), "hard", "http_400"),
        (400, error("The subject is required", "subject"), "hard", "subject_refused"),
        (400, error("Does not contain a valid address.", "from.email"), "misconfigured", "sender_refused"),
        (401, error("The provided authorization grant is invalid, expired, or revoked"), "misconfigured", "key_refused"),
        (401, error("Maximum credits exceeded"), "rate_limited", "credits_exceeded"),
        (403, error("The from address does not match a verified Sender Identity.", "from"), "misconfigured", "forbidden"),
        (403, error("You have been blocked from using this api for some time"), "misconfigured", "forbidden"),
        (404, error("resource not found"), "misconfigured", "http_404"),
        (405, error("method not allowed"), "misconfigured", "http_405"),
        (406, error("not acceptable"), "misconfigured", "http_406"),
        (413, b"<html>", "hard", "too_large"),
        (415, error("Content-Type should be application/json."), "misconfigured", "http_415"),
        (429, error("too many requests"), "rate_limited", "http_429"),
        (500, error("internal server error"), "soft", "http_500"),
        (502, b"<html>", "unknown", "http_502"),
        (503, b"<html>", "soft", "http_503"),
        (504, b"<html>", "unknown", "http_504"),
    ],
)
def test_each_answer_has_its_meaning(status: int, body: bytes, kind: str, code: str) -> None:
    outcome = bind(CONFIG).classify(HttpResponse(status, (), body), 0.0)

    assert (outcome.kind.value, outcome.code) == (kind, code)


def test_a_used_up_plan_is_tried_again_by_the_hour() -> None:
    outcome: Any = bind(CONFIG).classify(HttpResponse(401, (), error("Maximum credits exceeded")), 0.0)

    assert outcome.retry_after_s == CREDITS_EXCEEDED.retry_after_s == 3600.0


def test_every_code_of_the_tables_has_words_that_say_what_to_do() -> None:
    codes = {row.code for row in STATUSES.rows.values()} | {row.code for _, row in FIELDS} | {CREDITS_EXCEEDED.code}
    words = SENDGRID.explanations

    assert codes <= words.keys()
    assert all(text.endswith(".") and len(text) > 30 for text in words.values())


@pytest.mark.parametrize("code", ["subject_missing", "subject_has_line_break", "recipient_invalid", "payload_not_unicode"])
def test_what_can_not_be_sent_is_explained_too(code: str) -> None:
    assert code in SENDGRID.explanations
