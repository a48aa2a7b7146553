from __future__ import annotations

import ssl
from contextlib import suppress

import pytest

from actors.io.tls import RECORD_BYTES_MAX, TlsChannel, client_context, trusting
from dispatcher.errors import ConfigError
from house import Tls


class ServerEnd:
    """The other end, in memory."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.session = context.wrap_bio(self.incoming, self.outgoing, server_side=True)

    def hear(self, data: bytes) -> bytes:
        """Take ciphertext in, say what the handshake wants said."""
        self.incoming.write(data)
        with suppress(ssl.SSLWantReadError):
            self.session.do_handshake()
        return self.outgoing.read()

    def say(self, plaintext: bytes) -> bytes:
        self.session.write(plaintext)
        return self.outgoing.read()

    def end(self) -> bytes:
        with suppress(ssl.SSLWantReadError):
            self.session.unwrap()
        return self.outgoing.read()


def connected(tls: Tls, *, alpn: list[str] | None = None, host: str = "localhost") -> tuple[TlsChannel, ServerEnd]:
    context = tls.server_context()
    if alpn is not None:
        context.set_alpn_protocols(alpn)
    channel, server = TlsChannel(client_context(tls.client_context()), host), ServerEnd(context)
    done, outgoing = channel.handshake(b"")
    while not done:
        done, outgoing = channel.handshake(server.hear(outgoing))
    channel.receive(server.hear(outgoing))  # session tickets
    assert channel.decrypt(1) is None
    assert channel.is_quiet()
    return channel, server


def test_plaintext_crosses_both_ways(tls: Tls) -> None:
    channel, server = connected(tls)

    server.incoming.write(channel.encrypt(b"question"))
    assert server.session.read(100) == b"question"
    channel.receive(server.say(b"answer"))
    assert channel.decrypt(RECORD_BYTES_MAX) == b"answer"
    assert channel.decrypt(RECORD_BYTES_MAX) is None


def test_a_record_in_pieces_is_awaited(tls: Tls) -> None:
    channel, server = connected(tls)
    record = server.say(b"answer")

    channel.receive(record[:9])
    assert channel.decrypt(100) is None
    channel.receive(record[9:])
    assert channel.decrypt(100) == b"answer"


def test_it_is_quiet_only_when_nothing_is_left(tls: Tls) -> None:
    channel, server = connected(tls)
    channel.receive(server.say(b"answer"))

    assert channel.decrypt(3) == b"ans"
    assert not channel.is_quiet()


@pytest.mark.parametrize("left", [slice(None), slice(7)], ids=["a whole record", "a piece of one"])
def test_ciphertext_behind_the_answer_is_noise(tls: Tls, left: slice) -> None:
    channel, server = connected(tls)
    channel.receive(server.say(b"answer") + server.say(b"more")[left])

    assert channel.decrypt(100) == b"answer"
    assert not channel.is_quiet()


def test_the_closing_alert_behind_the_answer_is_noise(tls: Tls) -> None:
    channel, server = connected(tls)
    channel.receive(server.say(b"answer") + server.end())

    assert channel.decrypt(100) == b"answer"
    assert not channel.is_quiet()


def test_forged_ciphertext_behind_the_answer_is_noise(tls: Tls) -> None:
    channel, server = connected(tls)
    channel.receive(server.say(b"answer") + b"\x17\x03\x03\x00\x20" + bytes(32))

    assert channel.decrypt(100) == b"answer"
    assert not channel.is_quiet()


def test_the_closing_alert_reads_as_the_end(tls: Tls) -> None:
    channel, server = connected(tls)
    channel.receive(server.end())

    assert channel.decrypt(100) == b""


def test_a_close_without_the_alert_is_an_error(tls: Tls) -> None:
    channel, _ = connected(tls)
    channel.receive(b"")

    with pytest.raises(ssl.SSLEOFError):
        channel.decrypt(100)


def test_forged_ciphertext_is_an_error(tls: Tls) -> None:
    channel, _ = connected(tls)
    channel.receive(b"\x17\x03\x03\x00\x20" + bytes(32))

    with pytest.raises(ssl.SSLError):
        channel.decrypt(100)


def test_the_farewell_tells_the_peer(tls: Tls) -> None:
    channel, server = connected(tls)
    server.incoming.write(channel.farewell())

    assert server.session.read(100) == b""


def test_http_1_1_is_agreed_on_where_the_peer_has_more(tls: Tls) -> None:
    _, server = connected(tls, alpn=["h2", "http/1.1"])

    assert server.session.selected_alpn_protocol() == "http/1.1"


def test_a_peer_without_alpn_is_fine(tls: Tls) -> None:
    _, server = connected(tls)

    assert server.session.selected_alpn_protocol() is None


def test_a_trailing_dot_does_not_belong_to_the_certificates_name(tls: Tls) -> None:
    connected(tls, host="localhost.")


def test_an_address_is_verified_as_one(tls: Tls) -> None:
    connected(tls, host="127.0.0.1")


@pytest.mark.parametrize("host", ["127.0.0.2", "other.test"])
def test_a_certificate_for_another_name_is_refused(tls: Tls, host: str) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        connected(tls, host=host)


def test_a_context_that_does_not_verify_is_refused() -> None:
    unnamed, unverified = ssl.create_default_context(), ssl.create_default_context()
    unnamed.check_hostname = False
    unverified.check_hostname = False
    unverified.verify_mode = ssl.CERT_NONE

    for context in (unnamed, unverified):
        with pytest.raises(ConfigError):
            client_context(context)


def test_the_default_context_verifies_and_is_at_least_tls_1_2() -> None:
    context = client_context()

    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert context.options & ssl.OP_NO_RENEGOTIATION


def test_a_further_authority_is_trusted_beside_the_systems(tls: Tls) -> None:
    known = len(ssl.create_default_context().get_ca_certs())

    assert len(trusting("").get_ca_certs()) == known
    assert len(trusting(str(tls.ca_file)).get_ca_certs()) == known + 1


def test_an_authority_that_can_not_be_read_is_a_fault_of_the_configuration(tls: Tls) -> None:
    for file in ("/nowhere.pem", str(tls.key_file)):
        with pytest.raises(ConfigError, match="DISPATCHER_PROVIDER_CA_FILE"):
            trusting(file)
