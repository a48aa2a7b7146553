"""What the house-wide fixtures hand out, as types a test can name: ``from house import Tls``."""

from __future__ import annotations

import ssl
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import trustme


class Databases:
    """Databases of one Postgres server, made in a few milliseconds from a template and dropped again."""

    def __init__(self, server_url: str) -> None:
        self._server_url = server_url
        self._connection = psycopg.connect(server_url, autocommit=True)
        self._numbers = count(1)

    def create(self, template: str = "template0") -> str:
        """A new database; returns its URL."""
        name = f"test_{next(self._numbers)}"
        self._connection.execute(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY wal_log")
        return urlsplit(self._server_url)._replace(path=f"/{name}").geturl()

    def drop(self, url: str) -> None:
        """Drop a database whoever is still connected."""
        self._connection.execute(f"DROP DATABASE {self.name(url)} WITH (FORCE)")

    @staticmethod
    def name(url: str) -> str:
        return urlsplit(url).path.removeprefix("/")

    def close(self) -> None:
        self._connection.close()


class Tls:
    """A certificate authority of this run, a certificate of it for the loopback names, and what both ends need.

    ``ca_file``, ``certificate_file`` and ``key_file`` are PEM files for programs that want paths.
    """

    def __init__(self, folder: Path) -> None:
        self.authority = trustme.CA()
        self.certificate = self.authority.issue_cert("localhost", "127.0.0.1", "::1")
        self.ca_file = folder / "ca.pem"
        self.certificate_file = folder / "certificate.pem"
        self.key_file = folder / "key.pem"
        self.authority.cert_pem.write_to_path(self.ca_file)
        self.key_file.touch(mode=0o600)
        self.certificate.private_key_pem.write_to_path(self.key_file)
        for number, blob in enumerate(self.certificate.cert_chain_pems):
            blob.write_to_path(self.certificate_file, append=number > 0)

    def server_context(self) -> ssl.SSLContext:
        """Presents the certificate."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.certificate.configure_cert(context)
        return context

    def client_context(self) -> ssl.SSLContext:
        """Trusts this authority and checks the name."""
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        return context
