"""Problem documents (RFC 9457) as values, so that a decision can refuse without knowing HTTP's frameworks.

``code`` is the stable name a program may match on, ``detail`` is for the person reading, ``pointer`` (RFC 6901) names the field
of the request body at fault. No text here ever repeats a value of the request: a pointer names the field, never its content.
"""

from __future__ import annotations

from typing import Any

from attrs import evolve, field, frozen


@frozen
class Problem:
    """One reason why a request, or an item of a batch, was refused.

    ``retry_after_s`` becomes the ``Retry-After`` header. ``errors`` are further faults of the same request.
    """

    status: int
    code: str
    title: str
    detail: str
    pointer: str | None = None
    retry_after_s: int | None = None
    errors: tuple[Problem, ...] = field(default=())

    def below(self, prefix: str) -> Problem:
        """The same problem with every pointer moved under ``prefix``, for an item inside a batch."""
        return evolve(self, pointer=prefix + (self.pointer or ""), errors=tuple(error.below(prefix) for error in self.errors))

    def document(self) -> dict[str, Any]:
        """The body of an ``application/problem+json`` answer."""
        body: dict[str, Any] = {
            "type": f"urn:dispatcher:problem:{self.code}",
            "title": self.title,
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
        }
        if self.pointer is not None:
            body["pointer"] = self.pointer
        if self.errors:
            body["errors"] = [
                {"code": e.code, "detail": e.detail, **({} if e.pointer is None else {"pointer": e.pointer})} for e in self.errors
            ]
        return body


class Refused(Exception):
    """Raised to answer with a problem document. Carries no content of the request."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.code)
        self.problem = problem


def escape_pointer(name: str) -> str:
    """A field's name as one step of a pointer (RFC 6901); a dotted path becomes one step a name."""
    return "/".join(step.replace("~", "~0").replace("/", "~1") for step in name.split("."))
