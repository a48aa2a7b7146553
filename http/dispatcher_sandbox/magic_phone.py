"""Phone numbers that fail on purpose: ``+1500555`` and four digits that name a row of a table, the same for texts and WhatsApp.

The first ten are those of Twilio's own test credentials. Every other number there is an ordinary one, and so is one of which the
table has no row. A row's ``reason`` is worded by each provider in its own codes.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from dispatcher_sandbox.fates import Fate
from dispatcher_sandbox.magic import Magic, Trick

PREFIX = "+1500555"

TABLE: Mapping[str, Magic] = MappingProxyType(
    {
        "0000": Magic(Trick.DELIVER, explanation="always accepted and delivered, whatever the error mix says"),
        "0001": Magic(Trick.REFUSE, status=400, reason="invalid", explanation="refused: no valid number"),
        "0002": Magic(Trick.REFUSE, status=400, reason="route", explanation="refused: this sender can not reach it"),
        "0003": Magic(Trick.REFUSE, status=400, reason="region", explanation="refused: its region is switched off"),
        "0004": Magic(Trick.REFUSE, status=400, reason="opted-out", explanation="refused: it has answered STOP"),
        "0009": Magic(Trick.REFUSE, status=400, reason="landline", explanation="refused: it takes no messages"),
        "0010": Magic(Trick.DELIVER, fate=Fate.SOFT_BOUNCED, explanation="accepted, then reported: out of reach"),
        "0011": Magic(Trick.DELIVER, fate=Fate.BOUNCED, explanation="accepted, then reported: a landline, or not on WhatsApp"),
        "0012": Magic(Trick.DELIVER, fate=Fate.INVALID, explanation="accepted, then reported: not in service any more"),
        "0013": Magic(Trick.DELIVER, fate=Fate.BLOCKED, explanation="accepted, then reported: filtered, or withheld"),
        "0014": Magic(Trick.DELIVER, fate=Fate.DROPPED, explanation="accepted, then reported: it had opted out before"),
        "0015": Magic(Trick.DELIVER, fate=Fate.READ, explanation="accepted, delivered, and read on WhatsApp"),
        "0016": Magic(Trick.DELIVER, fate=Fate.UNSUBSCRIBED, explanation="accepted, delivered, then it answers STOP"),
        "0017": Magic(Trick.DELIVER, fate=Fate.NOTHING, explanation="accepted, and nothing is ever reported of it"),
        "0018": Magic(Trick.DELIVER, late_s=5.0, explanation="accepted, and reported as delivered 5 seconds later"),
        "0019": Magic(Trick.DELIVER, fate=Fate.COMPLAINED, explanation="accepted, delivered, then wants no more marketing"),
        "0020": Magic(Trick.REFUSE, 2, 503, explanation="503 the first 2 times, then accepted"),
        "0021": Magic(Trick.REFUSE, status=503, explanation="503 for ever"),
        "0022": Magic(Trick.REFUSE, 1, 429, explanation="429 the first time, then accepted"),
        "0023": Magic(Trick.REFUSE, status=401, explanation="401, as if the credentials had been revoked"),
        "0024": Magic(Trick.REFUSE, status=403, explanation="403: the credentials do not allow it"),
        "0025": Magic(Trick.DROP, 1, explanation="accepted, but the first answer never comes: the connection closes"),
        "0026": Magic(Trick.DROP, explanation="accepted each time and never answered"),
        "0027": Magic(Trick.CLOSE, 1, explanation="the first time the connection closes before anything is accepted"),
        "0028": Magic(Trick.SILENT, 1, explanation="the first time nothing is accepted and no answer ever comes"),
        "0029": Magic(Trick.SLOW, delay_s=5.0, explanation="accepted at once, answered after 5 seconds"),
        "0030": Magic(Trick.REFUSE, 1, 400, "pair", explanation="refused the first time: too many messages to this number"),
        "0031": Magic(
            Trick.REFUSE, status=400, reason="window", explanation="refused: its last message is more than 24 hours old"
        ),
        "0032": Magic(Trick.REFUSE, status=400, reason="template", explanation="refused: there is no such template"),
        "0033": Magic(Trick.REFUSE, status=400, reason="sender", explanation="refused: the sender is not the account's"),
        "0034": Magic(Trick.REFUSE, status=400, reason="queue", explanation="refused: too much waits for this sender"),
    }
)


def magic_phone(number: str) -> Magic | None:
    """The row that a number in E.164 form names, or None for an ordinary number."""
    return TABLE.get(number.removeprefix(PREFIX)) if number.startswith(PREFIX) else None
