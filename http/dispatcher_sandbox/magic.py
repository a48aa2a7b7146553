"""Recipients that fail on purpose: a table, and how an address names a row of it.

An address at ``sandbox.test`` is magic when its local part is a name of the table, optionally ``-number``, optionally
``+anything``: ``soft-3+order.17@sandbox.test`` fails softly three times, then is accepted. The number is how many times the
trick is played (seconds for ``slow``, the status for ``status``). Any other address there is an ordinary one. A magic recipient
is exempt from the random shares of a behaviour, so that what it does is certain; outages, rate limits and validation still hold.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import NamedTuple

from dispatcher_sandbox.fates import Fate

DOMAIN = "sandbox.test"
FOREVER = 1_000_000_000
"""A number of times no test outlives."""


class Trick(Enum):
    """What is done to a request that carries a magic recipient."""

    DELIVER = "accepts it"
    REFUSE = "refuses it with a status"
    DROP = "accepts it, then closes the connection without answering"
    CLOSE = "closes the connection without accepting or answering"
    SILENT = "accepts nothing and never answers"
    SLOW = "accepts it, and answers late"


class Magic(NamedTuple):
    """One row: the trick, how many times it is played on one message before the message is accepted, and its details."""

    trick: Trick
    times: int = FOREVER
    status: int = 0
    reason: str = ""
    """Which of the provider's texts goes with the status, where it has several."""
    delay_s: float = 0.0
    fate: Fate | None = None
    """What its provider reports of it once it is accepted, where a hook is set; None is delivered."""
    late_s: float = 0.0
    """So much later than usual that is reported."""
    explanation: str = ""


TABLE: dict[str, Magic] = {
    "delivered": Magic(Trick.DELIVER, explanation="always accepted, whatever the error mix says"),
    "bounce": Magic(Trick.REFUSE, status=400, reason="address", explanation="refused for good: not a valid address"),
    "soft": Magic(Trick.REFUSE, 2, 503, explanation="503 the first 2 times, then accepted"),
    "always-soft": Magic(Trick.REFUSE, status=503, explanation="503 for ever"),
    "rate-limited": Magic(Trick.REFUSE, 1, 429, explanation="429 the first time, then accepted"),
    "unauthorized": Magic(Trick.REFUSE, status=401, explanation="401, as if the API key had been revoked"),
    "credits": Magic(Trick.REFUSE, status=401, reason="credits", explanation="401 with the text of an exhausted plan"),
    "forbidden": Magic(Trick.REFUSE, status=403, reason="sender", explanation="403: the sender is not verified"),
    "full": Magic(Trick.REFUSE, status=452, reason="full", explanation="452 for ever; over SMTP, the mailbox is full"),
    "too-many": Magic(Trick.REFUSE, 1, 452, "too-many", explanation="452 the first time; over SMTP, too many recipients"),
    "too-large": Magic(Trick.REFUSE, status=413, explanation="413, answered by the front server in HTML"),
    "status": Magic(Trick.REFUSE, status=500, explanation="refused with the status of its number: status-502"),
    "drop": Magic(Trick.DROP, 1, explanation="accepted, but the first answer never comes: the connection closes"),
    "always-drop": Magic(Trick.DROP, explanation="accepted each time and never answered"),
    "close": Magic(Trick.CLOSE, 1, explanation="the first time the connection closes before anything is accepted"),
    "silent": Magic(Trick.SILENT, 1, explanation="the first time nothing is accepted and no answer ever comes"),
    "slow": Magic(Trick.SLOW, delay_s=5.0, explanation="accepted at once, answered after 5 seconds"),
    "hard-bounce": Magic(Trick.DELIVER, fate=Fate.BOUNCED, explanation="accepted, then reported as bounced: no such mailbox"),
    "soft-bounce": Magic(
        Trick.DELIVER, fate=Fate.SOFT_BOUNCED, explanation="accepted, then reported as undelivered: mailbox full"
    ),
    "blocked": Magic(Trick.DELIVER, fate=Fate.BLOCKED, explanation="accepted, then reported as blocked by a policy"),
    "dropped": Magic(Trick.DELIVER, fate=Fate.DROPPED, explanation="accepted, then dropped by the provider: bounced before"),
    "deferred": Magic(Trick.DELIVER, fate=Fate.DEFERRED, explanation="accepted, reported as deferred, then as delivered"),
    "complaint": Magic(Trick.DELIVER, fate=Fate.COMPLAINED, explanation="accepted, delivered, then called spam"),
    "unsubscribe": Magic(Trick.DELIVER, fate=Fate.UNSUBSCRIBED, explanation="accepted, delivered, then the recipient opts out"),
    "read": Magic(Trick.DELIVER, fate=Fate.READ, explanation="accepted, delivered, then opened"),
    "no-news": Magic(Trick.DELIVER, fate=Fate.NOTHING, explanation="accepted, and nothing is ever reported of it"),
    "late": Magic(Trick.DELIVER, late_s=5.0, explanation="accepted, and reported as delivered 5 seconds later"),
    "early": Magic(Trick.SLOW, delay_s=1.0, explanation="accepted and reported at once, answered after a second"),
}

_LOCAL = re.compile(r"(?P<name>[a-z]+(?:-[a-z]+)*)(?:-(?P<number>[0-9]{1,6}))?(?:\+.*)?", re.DOTALL)
_TAIL = "@" + DOMAIN
_TAIL_LENGTH = len(_TAIL)


def magic_of(address: str) -> Magic | None:
    """The row an e-mail address names, or None for an ordinary address."""
    if address[-_TAIL_LENGTH:].lower() != _TAIL:
        return None
    match = _LOCAL.fullmatch(address[:-_TAIL_LENGTH].lower())
    if match is None or (row := TABLE.get(match["name"])) is None:
        return None
    if match["number"] is None:
        return row
    number = int(match["number"])
    if match["name"] == "status":
        return row._replace(status=number) if 400 <= number <= 599 else None
    if row.trick is Trick.SLOW:
        return row._replace(delay_s=float(min(number, 3600)))
    if row.late_s:
        return row._replace(late_s=float(min(number, 86_400)))
    return row._replace(times=number)
