"""What each exception is answered with."""

from __future__ import annotations

import orjson
import pytest
import trio
from werkzeug import exceptions

from dispatcher.errors import ConfigError, Overloaded, QueueUnavailable, StoreUnavailable
from dispatcher.problems import Problem, Refused
from dispatcher_http import problems
from dispatcher_http.problems import body_of, headers_of, problem_of

OWN = Problem(418, "teapot", "Teapot", "It is one.", "/tea", 7)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (Refused(OWN), 418, "teapot"),
        (Overloaded("it", 0.1), 503, "overloaded"),
        (StoreUnavailable("x"), 503, "store_unavailable"),
        (trio.TooSlowError(), 503, "store_unavailable"),
        (QueueUnavailable("x"), 503, "queue_unavailable"),
        (ConfigError("x"), 500, "internal_error"),
        (ValueError("x"), 500, "internal_error"),
        (exceptions.NotFound(), 404, "not_found"),
        (exceptions.MethodNotAllowed(["GET"]), 405, "method_not_allowed"),
        (exceptions.RequestTimeout(), 408, "body_timeout"),
        (exceptions.RequestEntityTooLarge(), 413, "body_too_large"),
        (exceptions.BadHost(), 400, "bad_request"),
        (exceptions.ImATeapot(), 400, "bad_request"),
        (exceptions.InternalServerError(), 500, "internal_error"),
        (exceptions.HTTPException("no code"), 500, "internal_error"),
        (ExceptionGroup("g", [Refused(OWN)]), 418, "teapot"),
        (ExceptionGroup("g", [ExceptionGroup("g", [StoreUnavailable("x")])]), 503, "store_unavailable"),
        (ExceptionGroup("g", [Refused(OWN), ValueError()]), 500, "internal_error"),
    ],
)
def test_every_exception_has_its_problem(error: Exception, status: int, code: str) -> None:
    problem = problem_of(error)

    assert (problem.status, problem.code) == (status, code)


def test_headers_follow_from_the_problem() -> None:
    assert dict(headers_of(OWN)) == {"content-type": "application/problem+json", "retry-after": "7"}
    assert "www-authenticate" in dict(headers_of(problems.UNAUTHENTICATED))
    assert dict(headers_of(problems.UPGRADE_REQUIRED))["upgrade"] == "websocket"
    not_allowed = exceptions.MethodNotAllowed(["POST", "GET"])
    assert dict(headers_of(problem_of(not_allowed), not_allowed))["allow"] == "GET, POST"


def test_waits_are_whole_seconds_and_at_least_one() -> None:
    assert [problem_of(Overloaded("it", wait_s)).retry_after_s for wait_s in (0, 0.2, 1.0, 1.2)] == [1, 1, 1, 2]


def test_the_body_is_the_document() -> None:
    assert orjson.loads(body_of(OWN)) == {
        "type": "urn:dispatcher:problem:teapot",
        "title": "Teapot",
        "status": 418,
        "code": "teapot",
        "detail": "It is one.",
        "pointer": "/tea",
    }


def test_what_was_not_found_is_named_and_not_repeated() -> None:
    problem = problems.resource_not_found("dead_letter")

    assert (problem.code, problem.title) == ("dead_letter_not_found", "Dead letter not found")
