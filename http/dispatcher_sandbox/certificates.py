"""Certificates for the ways in that are never without TLS: an authority of this process, made when it is first asked for.

Its key is nowhere but in memory, and it certifies loopback names only. A client of the sandbox has to be told to trust it.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
import tempfile
from functools import cache
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

VALID_DAYS = 30
_SLACK = dt.timedelta(hours=1)
# In the order of x509.KeyUsage: it signs certificates and lists of revoked ones, nothing else.
_USES_OF_AN_AUTHORITY = (False, False, False, False, False, True, True, False, False)


class Authority:
    """One authority and the certificate it has signed for the loopback names and ``names``."""

    def __init__(self, names: tuple[str, ...] = ()) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "dispatcher sandbox authority")])
        now = dt.datetime.now(dt.UTC)
        self._from, self._until = now - _SLACK, now + dt.timedelta(days=VALID_DAYS)
        itself = (
            self._certificate(self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(x509.KeyUsage(*_USES_OF_AN_AUTHORITY), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.ca_pem = itself.public_bytes(serialization.Encoding.PEM)
        """What a client is to trust."""
        addresses = (x509.IPAddress(ipaddress.ip_address(address)) for address in ("127.0.0.1", "::1"))
        alternatives = [*addresses, *(x509.DNSName(name) for name in ("localhost", *names))]
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "dispatcher sandbox")])
        certificate = (
            self._certificate(subject, key.public_key())
            .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        self._chain = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ) + certificate.public_bytes(serialization.Encoding.PEM)

    def server_context(self, *protocols: str) -> ssl.SSLContext:
        """A server's context with that certificate, which offers the named ALPN protocols."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        with tempfile.TemporaryDirectory() as folder:  # a chain is read from files only
            file = Path(folder, "chain.pem")
            file.touch(mode=0o600)
            file.write_bytes(self._chain)
            context.load_cert_chain(file)
        if protocols:
            context.set_alpn_protocols(list(protocols))
        return context

    def client_context(self) -> ssl.SSLContext:
        """A client's context that trusts nobody else."""
        return ssl.create_default_context(cadata=self.ca_pem.decode())

    def _certificate(self, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(self._from)
            .not_valid_after(self._until)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        )


@cache
def authority() -> Authority:
    """The authority of this process."""
    return Authority()
