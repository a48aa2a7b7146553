"""How SES words a refusal: an exception named in a header, and a message in a JSON body."""

from __future__ import annotations

import orjson

from dispatcher_sandbox.messages import JSON, Answer


class Refused(Exception):
    """A request that SES does not take. ``status`` and ``name`` are those of the exception."""

    def __init__(self, status: int, name: str, message: str) -> None:
        super().__init__(name)
        self.answer = refusal(status, name, message)


def refusal(status: int, name: str, message: str) -> Answer:
    """The answer that refuses a request."""
    headers = JSON + b"x-amzn-ErrorType: %b:http://internal.amazon.com/coral/com.amazonaws.ses/\r\n" % name.encode()
    return Answer(status, headers, orjson.dumps({"message": message}))


def bad_request(message: str) -> Refused:
    """The common refusal of a field."""
    return Refused(400, "BadRequestException", message)
