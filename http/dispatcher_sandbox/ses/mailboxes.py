"""Recipients with a meaning: those of every simulator, and the mailboxes that SES itself keeps for trying things out."""

from __future__ import annotations

from collections.abc import Sequence

from dispatcher_sandbox.fates import Fate
from dispatcher_sandbox.magic import Magic, Trick, magic_of

DOMAIN = "simulator.amazonses.com"
MAILBOXES = {
    "success": Fate.DELIVERED,
    "bounce": Fate.BOUNCED,
    "ooto": Fate.SOFT_BOUNCED,
    "complaint": Fate.COMPLAINED,
    "suppressionlist": Fate.DROPPED,
}
"""Accepted all of them; what is reported later is what they differ in. A label may follow the name: ``bounce+x``."""


def meaning_of(recipients: Sequence[str]) -> tuple[Magic | None, str]:
    """What the first recipient with a meaning stands for, and its address."""
    for address in recipients:
        local, _, domain = address.lower().rpartition("@")
        found = magic_of(address)
        if domain == DOMAIN and (fate := MAILBOXES.get(local.partition("+")[0])) is not None:
            found = Magic(Trick.DELIVER, fate=fate)
        if found is not None:
            return found, address
    return None, ""
