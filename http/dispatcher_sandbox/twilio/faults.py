"""How Twilio words a refusal: ``{"code", "message", "more_info", "status"}``. Messages repeat numbers, as the real ones do."""

from __future__ import annotations

from typing import NamedTuple

import orjson

from dispatcher_sandbox.messages import JSON, Answer

AUTHENTICATE = b'WWW-Authenticate: Basic realm="Twilio API"\r\n'


class Fault(NamedTuple):
    """One refusal. ``code`` is Twilio's number for it."""

    code: int
    message: str
    status: int = 400


TEXTS: dict[tuple[int, str], Fault] = {
    (400, "invalid"): Fault(21211, "Invalid 'To' Phone Number"),
    (400, "route"): Fault(21612, "Message cannot be sent with the current combination of 'To' and 'From' parameters"),
    (400, "region"): Fault(21408, "Permission to send an SMS has not been enabled for the region indicated by the 'To' number"),
    (400, "opted-out"): Fault(21610, "Attempt to send to unsubscribed recipient"),
    (400, "landline"): Fault(21614, "'To' number is not a valid mobile number"),
    (400, "pair"): Fault(14107, "Message rate exceeded between this 'From' and 'To'"),
    (400, "window"): Fault(63016, "Failed to send freeform message because you are outside the allowed window"),
    (400, "template"): Fault(63027, "Template does not exist for a language and locale"),
    (400, "sender"): Fault(21606, "The 'From' phone number provided is not a valid, message-capable Twilio phone number"),
    (400, "queue"): Fault(21611, "This 'From' number has exceeded the maximum number of queued messages"),
    (400, ""): Fault(20001, "Bad Request"),
    (401, ""): Fault(20003, "Authenticate", 401),
    (403, ""): Fault(20403, "Forbidden", 403),
    (404, ""): Fault(20404, "The requested resource was not found", 404),
    (405, ""): Fault(20004, "Method not allowed", 405),
    (429, ""): Fault(20429, "Too Many Requests", 429),
    (500, ""): Fault(20500, "Internal Server Error", 500),
    (503, ""): Fault(20503, "Service Unavailable", 503),
}


def refusal(fault: Fault) -> Answer:
    """The answer that tells of a fault."""
    code, message, status = fault
    document = {
        "code": code,
        "message": message,
        "more_info": f"https://www.twilio.com/docs/errors/{code}",
        "status": status,
    }
    return Answer(status, JSON + (AUTHENTICATE if status == 401 else b""), orjson.dumps(document))
