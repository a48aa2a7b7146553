"""What an outcome or a failed exchange means for a person: what happened, where, and what to do.

The words of a provider's own table come first; what it has no words for is said by the class of the outcome. Invariant: no
sentence holds a recipient, a payload, a credential or anything a provider has written.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from dispatcher.outcome import Outcome, OutcomeClass
from dispatcher.providers.provider import Provider

CLASSES: Final[Mapping[OutcomeClass, str]] = MappingProxyType(
    {
        OutcomeClass.DELIVERED: "The provider has taken the message.",
        OutcomeClass.SOFT: "The provider can not take it at this moment. It will be tried again by itself.",
        OutcomeClass.RATE_LIMITED: "The provider asks to slow down: its limit is reached. Sending goes on when it allows.",
        OutcomeClass.HARD: "The provider refuses this message for good. Look at its content and settings.",
        OutcomeClass.SUPPRESS: "The provider refuses this recipient for good. Do not send to it again.",
        OutcomeClass.MISCONFIGURED: "The provider refuses the configuration: look at credentials, sender and account.",
        OutcomeClass.UNKNOWN: "The provider may have acted, but its answer can not be relied on.",
        OutcomeClass.UNRESOLVED: "The provider could not say what became of an earlier attempt, so nothing was sent.",
        OutcomeClass.INTERRUPTED: "The attempt did not begin.",
    }
)
"""What is said where the provider's table has no words."""

UNSENDABLES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "recipient_invalid": "The recipient is not of the form that this provider sends to. Nothing was sent.",
        "payload_not_unicode": "Recipient or content hold half of a character, which nothing can carry. Nothing was sent.",
        "recipient_not_ascii": "The address has characters before the @ that this provider can not send to. Nothing was sent.",
        "endpoint_not_allowed": "The subscription is of a push service that is not allowed here. Nothing was sent.",
        "template_without_content_sid": "content_sids in the settings knows no such template in this language. Nothing was sent.",
        "text_too_long": "The text is longer than this provider takes. Nothing was sent.",
        "extras_invalid": "A header or an attachment is not of the form that mails have here. Nothing was sent.",
        "payload_too_large": "The content is larger than this provider takes. Nothing was sent.",
    }
)
"""By the codes of what no request can be made of, for providers that have no words of their own."""

FAILURES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "timeout_pool": "All connections to the provider are busy. Try again when less is being sent.",
        "pool_full": "Too many calls wait for a connection. Try again when less is being sent.",
        "pool_closed": "The dispatcher is shutting down. Try again when it runs.",
        "timeout_resolve": "The provider's name could not be looked up in time. Look at the name server of this machine.",
        "name_unresolved": "The provider's name does not exist. Look at the host in the settings, and at the name server.",
        "timeout_connect": "The provider did not take the connection in time. Look at firewalls on the way, and at the port.",
        "refused": "Nothing listens at that address. Look at host and port in the settings.",
        "unreachable": "There is no route to that address. Look at the network of this machine.",
        "files_exhausted": "This process has no file descriptor left. Raise its limit of open files.",
        "connect_failed": "The connection could not be made. Look at host and port in the settings.",
        "timeout_tls": "The TLS handshake took too long. Look at whether that port speaks TLS at all.",
        "tls_verify": "The provider's certificate is not one that this machine trusts, or is for another name. Look at the host.",
        "tls_alpn": "What answers there does not speak HTTP/2, which this provider is reached by. Look at host and port.",
        "tls_failed": "The TLS handshake failed. Look at whether that port speaks TLS, in a version from 1.2 on.",
        "closed": "The provider closed the connection without an answer. Try again; if it stays so, look at host and port.",
        "reset": "The connection was cut. Try again; if it stays so, look at firewalls between here and there.",
        "stream_refused": "The provider turned the request away without looking at it. Try again.",
        "stream_reset": "The provider broke the request off without an answer. Try again.",
        "going_away": "The provider was about to close the connection and did not look at the request. Try again.",
        "timeout_ping": "The connection to the provider gave no sign of life. Try again; if it stays so, look at firewalls.",
        "truncated": "The connection was cut in the middle of the answer. Try again.",
        "timeout_write": "The provider took the request too slowly. Try again.",
        "timeout_read": "The provider did not answer in time. Try again; if it stays so, look at its status page.",
        "protocol_error": "What answers there does not speak the provider's protocol. Look at host, port and base URL.",
        "starttls_injected": "Something speaks in the server's place before TLS begins. Look at the network on the way.",
        "out_of_step": "What answers there says more than it is asked. Look at host and port.",
        "reply_too_large": "What answers there does not come to an end. Look at host and port.",
        "body_too_large": "The answer is larger than any of this provider's. Look at whether the base URL leads to it.",
        "headers_too_large": "The answer is larger than any of this provider's. Look at whether the base URL leads to it.",
    }
)
"""By the codes of a failed exchange."""

_OTHER_FAILURE: Final = "The exchange with the provider failed. Try again; if it stays so, look at host, port and base URL."


def explain(provider: Provider, outcome: Outcome) -> str:
    """One or two sentences about an outcome."""
    return provider.explanations.get(outcome.code) or UNSENDABLES.get(outcome.code) or CLASSES[outcome.kind]


def explain_failure(code: str) -> str:
    """One or two sentences about an exchange that brought no answer."""
    return FAILURES.get(code, _OTHER_FAILURE)
