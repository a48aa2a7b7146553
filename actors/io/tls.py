"""TLS over memory: a channel turns plaintext into ciphertext and back, and never touches a socket.

``ssl.MemoryBIO`` costs half of what ``trio.SSLStream`` costs per small exchange (bench/io_http.py), because the bytes go
straight to and from the socket calls that are made anyway. Every channel verifies the peer's certificate and name; a
context that would not is refused when the pool is opened.
"""

from __future__ import annotations

import ssl
from contextlib import suppress

from dispatcher.errors import ConfigError

RECORD_BYTES_MAX = 16_384


def client_context(given: ssl.SSLContext | None = None, protocol: str = "http/1.1") -> ssl.SSLContext:
    """The context to connect with: the system's trusted authorities, or ``given``, whose ALPN is set to ``protocol``."""
    context = ssl.create_default_context() if given is None else given
    if context.verify_mode != ssl.CERT_REQUIRED or not context.check_hostname:
        raise ConfigError("the TLS context for outbound HTTP must verify the peer's certificate and host name")
    context.set_alpn_protocols([protocol])
    # A renegotiation would want to write in the middle of a read. Nothing we talk to needs it, TLS 1.3 has none.
    context.options |= ssl.OP_NO_RENEGOTIATION
    return context


def trusting(ca_file: str) -> ssl.SSLContext:
    """A context that trusts the system's authorities and those in a PEM file, if one is named; each pool needs its own.

    Raises ConfigError when the file can not be read.
    """
    context = ssl.create_default_context()
    if ca_file:
        try:
            context.load_verify_locations(ca_file)
        except (OSError, ssl.SSLError):
            raise ConfigError("DISPATCHER_PROVIDER_CA_FILE: must name a readable PEM file of certificates") from None
    return context


class TlsChannel:
    """One TLS session. What it wants sent, the caller sends; what arrives, the caller puts in."""

    __slots__ = ("_incoming", "_outgoing", "_session")

    def __init__(self, context: ssl.SSLContext, host: str) -> None:
        """Raises ValueError or ssl.SSLError when ``host`` cannot be a TLS server name."""
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._session = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host.rstrip("."))

    def handshake(self, received: bytes) -> tuple[bool, bytes]:
        """Go one step on. Returns whether the handshake is done, and what to send. Raises ssl.SSLError."""
        self._incoming.write(received)
        try:
            self._session.do_handshake()
        except ssl.SSLWantReadError:
            return False, self._outgoing.read()
        return True, self._outgoing.read()

    @property
    def protocol(self) -> str | None:
        """What both sides agreed to speak, after the handshake; None when the peer did not say."""
        return self._session.selected_alpn_protocol()

    def encrypt(self, plaintext: bytes) -> bytes:
        """Ciphertext of all of it, with whatever else the session wants sent."""
        self._session.write(plaintext)
        return self._outgoing.read()

    def receive(self, ciphertext: bytes) -> None:
        """Put in what arrived; empty means the peer closed the socket."""
        if ciphertext:
            self._incoming.write(ciphertext)
        else:
            self._incoming.write_eof()

    def decrypt(self, size: int) -> bytes | None:
        """Up to ``size`` bytes of plaintext; None when more ciphertext is needed; empty after the peer's closing alert.

        Raises ssl.SSLEOFError when the socket was closed without that alert, another ssl.SSLError when bytes are forged.
        """
        try:
            return self._session.read(size)
        except ssl.SSLWantReadError:
            return None

    def is_quiet(self) -> bool:
        """Nothing is left of what arrived, neither plaintext nor ciphertext."""
        return not self._incoming.pending and not self._session.pending()

    def farewell(self) -> bytes:
        """The closing alert, to be sent if it goes out without waiting."""
        # It asks for the peer's own alert, which nobody waits for, or the session is already broken.
        with suppress(ssl.SSLError):
            self._session.unwrap()
        return self._outgoing.read()
