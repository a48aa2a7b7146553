"""Every way to say no, and how each looks on the wire: ``application/problem+json`` (RFC 9457), always.

One function turns any exception into a problem. Those we know say what to do; the rest become a bare 500, and the log
gets the type and the place of what happened, never its text, because texts of exceptions repeat values.
"""

from __future__ import annotations

from http import HTTPStatus
from math import ceil

import orjson
import trio
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from dispatcher.errors import Overloaded, QueueUnavailable, StoreUnavailable
from dispatcher.problems import Problem, Refused

CONTENT_TYPE = "application/problem+json"

INTERNAL = Problem(
    500, "internal_error", "Internal error", "Something went wrong on our side. It is logged; nothing of your request is."
)
NOT_FOUND = Problem(404, "not_found", "Not found", "There is nothing at this address.")
UNAUTHENTICATED = Problem(401, "unauthenticated", "Not authenticated", "Send a valid key as 'Authorization: Bearer <key>'.")
ORGANIZATION_NOT_FOUND = Problem(
    404, "organization_not_found", "Organization not found", "There is no such organization, or this key is not one of its own."
)
MEDIA_TYPE = Problem(
    415, "media_type_unsupported", "Unsupported media type", "Send the body as uncompressed 'application/json' in UTF-8."
)
STOPPING = Problem(503, "stopping", "Stopping", "This process is going away. Try again; another one answers.", retry_after_s=1)
LISTENERS_FULL = Problem(
    503, "listeners_full", "Too many listeners", "This process holds as many listeners as it may.", retry_after_s=5
)
UPGRADE_REQUIRED = Problem(426, "upgrade_required", "Upgrade required", "This address speaks websocket only.")
BODY_TIMEOUT = Problem(408, "body_timeout", "Body too slow", "The body did not arrive in time.")

_STORE_UNAVAILABLE = Problem(
    503,
    "store_unavailable",
    "Store unavailable",
    "The database did not answer. Try again; with an Idempotency-Key nothing is done twice.",
    retry_after_s=1,
)
_QUEUE_UNAVAILABLE = Problem(
    503, "queue_unavailable", "Queue unavailable", "The queue cannot be reached. Try again.", retry_after_s=1
)

# What werkzeug and Quart raise by themselves. Their own descriptions are HTML, and some repeat the request.
_BY_STATUS = {
    400: Problem(400, "bad_request", "Bad request", "The request could not be understood."),
    404: NOT_FOUND,
    405: Problem(405, "method_not_allowed", "Method not allowed", "This address does not answer this method; see 'Allow'."),
    408: BODY_TIMEOUT,
    413: Problem(413, "body_too_large", "Body too large", "The body is larger than this address takes."),
    415: MEDIA_TYPE,
}


def body_too_large(bytes_max: int) -> Problem:
    """The body exceeds what this address takes."""
    return Problem(413, "body_too_large", "Body too large", f"The body may have at most {bytes_max} bytes.")


def scope_missing(scope: str) -> Problem:
    """The key is good, but not for this."""
    return Problem(403, "scope_missing", "Scope missing", f"This needs a key with the scope '{scope}'.")


def resource_not_found(what: str) -> Problem:
    """``what`` is a snake_case noun; the same answer for what never was and for what belongs to somebody else."""
    noun = what.replace("_", " ")
    return Problem(404, f"{what}_not_found", f"{noun.capitalize()} not found", f"This organization has no such {noun}.")


def problem_of(error: Exception) -> Problem:
    """The problem that an exception stands for; :data:`INTERNAL` for every one we did not expect."""
    if isinstance(error, Refused):
        return error.problem
    if isinstance(error, Overloaded):
        retry_after_s = max(1, ceil(error.retry_after_s))
        return Problem(503, "overloaded", "Overloaded", "Too much is under way. Try again later.", retry_after_s=retry_after_s)
    if isinstance(error, StoreUnavailable | trio.TooSlowError):
        return _STORE_UNAVAILABLE
    if isinstance(error, QueueUnavailable):
        return _QUEUE_UNAVAILABLE
    if isinstance(error, HTTPException):
        return _BY_STATUS.get(error.code or 500, INTERNAL if (error.code or 500) >= 500 else _BY_STATUS[400])
    if isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        # A nursery wraps what its only failing task raised.
        return problem_of(error.exceptions[0])
    return INTERNAL


def headers_of(problem: Problem, error: Exception | None = None) -> list[tuple[str, str]]:
    """The headers that belong to a problem, its content type included."""
    headers = [("content-type", CONTENT_TYPE)]
    if problem.retry_after_s is not None:
        headers.append(("retry-after", str(problem.retry_after_s)))
    if problem.status == HTTPStatus.UNAUTHORIZED:
        headers.append(("www-authenticate", 'Bearer realm="dispatcher"'))
    if problem is UPGRADE_REQUIRED:
        headers += [("upgrade", "websocket"), ("connection", "upgrade")]
    if isinstance(error, MethodNotAllowed):
        headers.append(("allow", ", ".join(sorted(error.valid_methods or ()))))
    return headers


def body_of(problem: Problem) -> bytes:
    """The document, as bytes."""
    return orjson.dumps(problem.document())
