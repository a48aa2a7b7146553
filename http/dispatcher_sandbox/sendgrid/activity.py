"""SendGrid's email activity: a search among the mails that were taken, ``GET /v3/messages?limit=…&query=…``.

Of the query language one sentence is understood, the one that looks for a custom argument,
``(unique_args['notification_id']="…")``, with or without its parentheses. The real one knows many; here they are a 400.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Sequence
from datetime import UTC, datetime

import orjson

from dispatcher_sandbox.ledger import Sent
from dispatcher_sandbox.messages import JSON, Answer
from dispatcher_sandbox.sendgrid.faults import Fault, refusal
from dispatcher_sandbox.simulator import Search

LIMIT_DEFAULT = 10
LIMIT_MAX = 1000
_QUERY = re.compile(r"""\(?unique_args\['notification_id'\]\s*=\s*"([^"]{1,256})"\)?""")


def search_of(target: bytes) -> Search | Answer:
    """What the target of a request asks for, or the refusal of what can not be understood."""
    fields = urllib.parse.parse_qs(target.partition(b"?")[2].decode("latin-1"), keep_blank_values=True)
    limit = fields.get("limit", [str(LIMIT_DEFAULT)])[-1]
    if not limit.isdecimal() or not 1 <= int(limit) <= LIMIT_MAX:
        return refusal(400, [Fault(f"limit must be between 1 and {LIMIT_MAX}", "limit")])
    query = fields.get("query", [""])[-1]
    if not query:
        return refusal(400, [Fault("query is required", "query")])
    match = _QUERY.fullmatch(query.strip())
    if match is None:
        return refusal(400, [Fault("invalid query", "query")])
    return Search(match[1], int(limit))


def listing(sent: Sequence[Sent]) -> Answer:
    """The mails found. Addresses and subjects, which the real answer has too, are not kept in the ledger."""
    messages = [
        {
            "msg_id": f"{message_id}.sandbox-0",
            "status": "delivered",
            "opens_count": 0,
            "clicks_count": 0,
            "last_event_time": datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        for message_id, at_s in sent
    ]
    return Answer(200, JSON, orjson.dumps({"messages": messages}))
