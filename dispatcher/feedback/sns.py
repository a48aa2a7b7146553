"""Messages of Amazon SNS: whether one is from the topic it says it is from, and what is to be done about it.

SNS signs a text made of some of the envelope's fields with a key whose certificate lies at a URL in the same envelope. So that
URL is what everything hangs on: only Amazon's own hosts are believed, and beside them an origin that whoever runs the dispatcher
has allowed as a base URL and that a configuration names. A topic must be among those of the configuration before anything is
fetched on its behalf. Invariant: nothing raises, and nothing of a message is looked at before its signature.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from types import MappingProxyType
from typing import Final

import orjson
from attrs import field, frozen
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA1, SHA256, HashAlgorithm
from cryptography.x509 import Certificate, load_pem_x509_certificate

from dispatcher.feedback.feedback import REPLAY_WINDOW_S, Fetch, WebhookReply
from dispatcher.http_message import Origin
from dispatcher.origins import parse_base_url
from dispatcher.problems import Problem

REPEATED_FOR_S: Final = 3600.0
"""The longest that a delivery policy of SNS may go on with one message: a repetition has the same signed bytes, time included."""

DIGESTS: Mapping[str, HashAlgorithm] = MappingProxyType({"1": SHA1(), "2": SHA256()})  # noqa: S303 - 1 is SNS's default
"""By ``SignatureVersion``."""

SIGNED_FIELDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "Notification": ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type"),
        "SubscriptionConfirmation": ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"),
        "UnsubscribeConfirmation": ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type"),
    }
)
"""What is signed, by ``Type`` and in order. Only ``Subject`` may be missing."""

# A region, spelled as regions are: what is merely some label would also be ``sns.s3-us-west-2.amazonaws.com``, where anybody may
# have the bucket ``sns`` and put a certificate of their own into it.
_OF_AMAZON = r"https://sns\.[a-z]{2}(?:-[a-z]{2,12}){1,3}-[0-9]{1,2}\.amazonaws\.com(?:\.cn)?"
_CERTIFICATE_URL = re.compile(_OF_AMAZON + r"/[A-Za-z0-9._/-]{1,256}\.pem")
_CONFIRMATION_URL = re.compile(_OF_AMAZON + r"/(?:\?[A-Za-z0-9._~!$&'()*+,;=:@/?%-]{1,4096})?")
_QUERY = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@/?%-]{0,4096}")
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(?:\.\d{1,6})?Z")
_MESSAGE_ID = re.compile(r"[A-Za-z0-9-]{1,100}")


@frozen
class Published:
    """An authentic message of a topic that is ours. ``message_id`` is the same for all deliveries of it."""

    message_id: str
    topic_arn: str
    at_unix_s: float
    message: str = field(repr=False)


def opened(
    body: bytes, now_unix_s: float, fetched: Mapping[str, bytes], topics: Collection[str], origin_extra: Origin | None = None
) -> Published | WebhookReply | Fetch | Problem:
    """Check an envelope: the message in it, or what is to be fetched, answered or refused instead.

    ``topics`` are the ARNs of those whose messages are believed. ``origin_extra`` may stand for Amazon's hosts in URLs.
    """
    envelope = _envelope(body)
    kind = envelope.get("Type", "")
    names = SIGNED_FIELDS.get(kind)
    if names is None or not all(name in envelope for name in (*names, *_FIELDS) if name != "Subject"):
        return refused("body_invalid", "This is no message of SNS.")
    if not topics:
        return refused("webhook_not_set_up", "The configuration names no sns_topic_arn, so no topic is believed.")
    if envelope["TopicArn"] not in topics:
        return refused("topic_refused", "The message is of a topic that is not in sns_topic_arn of the configuration.")
    at_unix_s = unix_s(envelope["Timestamp"])
    if at_unix_s is None or not -REPLAY_WINDOW_S <= now_unix_s - at_unix_s <= REPEATED_FOR_S + REPLAY_WINDOW_S:
        return refused("signature_too_old", "The signed time is too far from now: a replay, or a clock that is wrong.")
    certificate_url = envelope["SigningCertURL"]
    if not _is_allowed(certificate_url, _CERTIFICATE_URL, origin_extra) or not certificate_url.endswith(".pem"):
        return refused("certificate_url_refused", "The certificate would not come from SNS.")
    pem = fetched.get(certificate_url)
    if pem is None:
        return Fetch(certificate_url, again=True)
    problem = _signature_problem(envelope, names, pem, now_unix_s)
    if problem is not None:
        return problem
    if kind == "SubscriptionConfirmation":
        if not _is_allowed(envelope["SubscribeURL"], _CONFIRMATION_URL, origin_extra):
            return refused("confirmation_url_refused", "The confirmation would not go to SNS.")
        return Fetch(envelope["SubscribeURL"], again=False)
    if kind == "UnsubscribeConfirmation":
        return WebhookReply(200, "sns_unsubscribed")
    if _MESSAGE_ID.fullmatch(envelope["MessageId"]) is None:
        return refused("body_invalid", "The message has no id of SNS.")
    return Published(envelope["MessageId"], envelope["TopicArn"], at_unix_s, envelope["Message"])


_FIELDS = ("SignatureVersion", "Signature", "SigningCertURL")


def refused(code: str, detail: str) -> Problem:
    """A report that is not to be trusted."""
    return Problem(403, code, "The report can not be trusted", detail)


def unix_s(timestamp: object) -> float | None:
    """Unix seconds of a time as AWS writes it; None for anything else."""
    if not isinstance(timestamp, str) or _TIME.fullmatch(timestamp) is None:
        return None
    with suppress(ValueError):
        return datetime.fromisoformat(timestamp).astimezone(UTC).timestamp()
    return None


def _envelope(body: bytes) -> Mapping[str, str]:
    """The fields that are texts; SNS has no others."""
    with suppress(orjson.JSONDecodeError):
        document = orjson.loads(body)
        if isinstance(document, dict):
            return {name: value for name, value in document.items() if isinstance(value, str)}
    return {}


def _is_allowed(url: str, amazons: re.Pattern[str], origin_extra: Origin | None) -> bool:
    if amazons.fullmatch(url) is not None:
        return True
    before, _, query = url.partition("?")
    base = None if origin_extra is None else parse_base_url(before)
    return base is not None and base.origin == origin_extra and _QUERY.fullmatch(query) is not None


def _signature_problem(envelope: Mapping[str, str], names: Collection[str], pem: bytes, now_unix_s: float) -> Problem | None:
    certificate = certificate_of(pem)
    key = None if certificate is None else certificate.public_key()
    if certificate is None or not isinstance(key, RSAPublicKey):
        return refused("certificate_invalid", "What lies at the certificate's URL is no certificate with an RSA key.")
    valid_s = certificate.not_valid_before_utc.timestamp(), certificate.not_valid_after_utc.timestamp()
    if not valid_s[0] <= now_unix_s <= valid_s[1]:
        return refused("certificate_expired", "The certificate is not valid at this time.")
    digest = DIGESTS.get(envelope["SignatureVersion"])
    if digest is None:
        return refused("signature_version_unknown", "The signature is of a version that is not known here.")
    signed = "".join(f"{name}\n{envelope[name]}\n" for name in names if name in envelope)
    try:
        key.verify(base64.b64decode(envelope["Signature"], validate=True), signed.encode(), PKCS1v15(), digest)
    except (InvalidSignature, binascii.Error, ValueError):
        return refused("signature_invalid", "The signature does not fit the message and the certificate.")
    return None


@lru_cache(maxsize=64)
def certificate_of(pem: bytes) -> Certificate | None:
    """The certificate in PEM; None when it is none."""
    with suppress(ValueError):
        return load_pem_x509_certificate(pem)
    return None
