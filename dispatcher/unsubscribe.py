"""Links by which somebody unsubscribes with one click (RFC 8058), and what their senders put into a mail's headers for it.

A link holds all that is needed to act on it, sealed with a key derived from those of the process (AES-SIV, RFC 5297), so that it
can neither be read nor made by others; it asks for no account and no cookie. The sealing is deterministic: the same link for the
same mail, with no randomness. Any key of the process opens it, so links survive a rotation as long as the old key is kept.
Invariant: what was not made here is None, whatever it is; an address stands in a link only as a digest, never by itself.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from typing import Any, Final

import orjson
from attrs import field, frozen
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from dispatcher.model import Channel, OrganizationId
from dispatcher.people import ANY
from dispatcher.vault import EncryptionKeys

PATH: Final = "/v1/unsubscribe/"
"""A token follows it."""
ONE_CLICK: Final = ("List-Unsubscribe", "One-Click")
"""Name and value that the form of a click has."""
TOKEN_CHARS_MAX = 1500
URL_CHARS_MAX = 970
"""Of a link in a header: a line of a mail has at most 998 characters (RFC 5322), and a link can not be folded."""

_PURPOSE = b"unsubscribe links 1"
_KEY_BYTES = 64
_TAG_BYTES = 16


@frozen
class Unsubscription:
    """What a link says: somebody does not want a topic (``ANY``: anything) by a channel any more.

    Exactly one of ``user_id`` and ``address`` is given; the latter, for who is no user, is what identifies the contact
    (``dispatcher.contacts.address_of``). ``locale`` is the language of the message that the link stood in.
    """

    organization_id: OrganizationId
    channel: Channel
    topic: str = ANY
    user_id: str | None = field(default=None, repr=False)
    address: bytes | None = field(default=None, repr=False)
    issued_at_s: int = 0
    locale: str | None = None


class Links:
    """Makes and reads links. ``public_url`` is where people reach the surface, without a slash at its end."""

    def __init__(self, public_url: str, keys: EncryptionKeys) -> None:
        self._prefix = public_url + PATH
        self._ciphers = [AESSIV(key) for key in keys.derived(_PURPOSE, _KEY_BYTES)]

    @classmethod
    def of(cls, public_url: str, keys: EncryptionKeys | None) -> Links | None:
        """What makes links; None where nobody could follow or trust them, for want of a URL or of keys."""
        return cls(public_url, keys) if public_url and keys is not None else None

    def url(self, unsubscription: Unsubscription) -> str:
        """The link, ASCII, mostly some 200 characters long."""
        return self._prefix + self.token(unsubscription)

    def token(self, unsubscription: Unsubscription) -> str:
        """The last part of the link."""
        each = unsubscription
        address = None if each.address is None else each.address.hex()
        document = [each.organization_id, each.channel, each.topic, each.user_id, address, each.issued_at_s, each.locale]
        return urlsafe_b64encode(self._ciphers[0].encrypt(orjson.dumps(document), None)).decode().rstrip("=")

    def read(self, token: str) -> Unsubscription | None:
        """What a token says; None when it is none of ours."""
        if len(token) > TOKEN_CHARS_MAX or not token.isascii() or not token.replace("-", "a").replace("_", "a").isalnum():
            return None
        try:
            sealed = urlsafe_b64decode(token + "=" * (-len(token) % 4))
        except ValueError:
            return None
        if len(sealed) <= _TAG_BYTES or urlsafe_b64encode(sealed).decode().rstrip("=") != token:
            return None
        for cipher in self._ciphers:
            try:
                return _unsubscription(*orjson.loads(cipher.decrypt(sealed, None)))
            except InvalidTag:
                continue
        return None


def unsubscribe_headers(url: str) -> Mapping[str, str]:
    """The headers of a mail that may be unsubscribed from by this link with one click (RFC 8058, section 3.1).

    None for a link that is too long to be in one, which only the most unusual user ids can bring about.
    """
    if len(url) > URL_CHARS_MAX:
        return {}
    return {"List-Unsubscribe": f"<{url}>", "List-Unsubscribe-Post": "=".join(ONE_CLICK)}


def _unsubscription(
    organization_id: str,
    channel: str,
    topic: str,
    user_id: str | None,
    address: str | None,
    issued_at_s: int,
    locale: str | None,
    *_later: Any,
) -> Unsubscription:
    """Fields that a newer release may add behind these are let pass."""
    digest = None if address is None else bytes.fromhex(address)
    return Unsubscription(OrganizationId(organization_id), Channel(channel), topic, user_id, digest, issued_at_s, locale)
