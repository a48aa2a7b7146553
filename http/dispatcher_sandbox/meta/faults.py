"""How Meta words a refusal: ``{"error": {"message", "type", "code", "error_data", "fbtrace_id"}}``, nearly always as a 400."""

from __future__ import annotations

from typing import Any, NamedTuple

import orjson

from dispatcher_sandbox.messages import JSON, Answer


class Fault(NamedTuple):
    """One refusal. ``code`` is Meta's number for it, ``details`` says more."""

    code: int
    message: str
    details: str | None = None
    status: int = 400
    subcode: int | None = None


TEXTS: dict[tuple[int, str], Fault] = {
    (400, ""): Fault(100, "Invalid parameter"),
    (400, "invalid"): Fault(131026, "Message undeliverable", "Message Undeliverable."),
    (400, "route"): Fault(131000, "Something went wrong", "Message failed to send because of an unknown error."),
    (400, "region"): Fault(130497, "Business account is restricted from messaging users in this country."),
    (400, "opted-out"): Fault(131050, "Unable to deliver the message", "The recipient has stopped marketing messages."),
    (400, "landline"): Fault(131026, "Message undeliverable", "Message Undeliverable."),
    (400, "pair"): Fault(131056, "(Business Account, Consumer Account) pair rate limit hit", "Too many messages to this number."),
    (400, "window"): Fault(131047, "Re-engagement message", "More than 24 hours have passed since the customer last replied."),
    (400, "template"): Fault(132001, "Template name does not exist in the translation"),
    (400, "sender"): Fault(133010, "The account is not registered"),
    (400, "queue"): Fault(130429, "Rate limit hit", "Cloud API message throughput has been reached."),
    (401, ""): Fault(190, "Invalid OAuth access token - Cannot parse access token", status=401),
    (403, ""): Fault(10, "Application does not have permission for this action", status=403),
    (404, ""): Fault(2500, "Unknown path components", status=400),
    (405, ""): Fault(100, "Unsupported method"),
    (429, ""): Fault(4, "Application request limit reached", status=429),
    (500, ""): Fault(131000, "Something went wrong", status=500),
    (503, ""): Fault(131016, "Service unavailable", "A service is temporarily unavailable.", 503),
}


def refusal(fault: Fault) -> Answer:
    """The answer that tells of a fault."""
    error: dict[str, Any] = {
        "message": f"(#{fault.code}) {fault.message}",
        "type": "OAuthException",
        "code": fault.code,
        "fbtrace_id": "Az8or2yhqkZfEZ-_4Qn_Bam",
    }
    if fault.details is not None:
        error["error_data"] = {"messaging_product": "whatsapp", "details": fault.details}
    if fault.subcode is not None:
        error["error_subcode"] = fault.subcode
    return Answer(fault.status, JSON, orjson.dumps({"error": error}))
