"""Where a Redis server is and who we are to it, read from a URL by redis-py's own parser.

``redis://[user:password@]host[:port][/database]``, ``rediss://…`` for TLS and ``unix://[user:password@]/path[?db=database]``.
Invariant: over TLS the certificate and the host name are always verified; an option that would relax this, or that has no meaning
here, is refused instead of ignored. No message and no repr shows the URL, the user or the password.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from attrs import field, frozen
from redis.connection import SSLConnection, parse_url

from dispatcher.errors import ConfigError

_read: Callable[[str], Mapping[str, Any]] = parse_url

_OPTIONS = ("db", "client_name", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_OF_THE_URL = ("connection_class", "host", "port", "path", "username", "password")


@frozen
class Endpoint:
    """One server, one logical database, one user."""

    host: str
    """Empty for a Unix socket."""
    port: int
    path: str
    """Of the Unix socket; empty for TCP."""
    database: int
    username: str | None = field(repr=False)
    password: str | None = field(repr=False)
    client_name: str
    """How the server lists the connection."""
    tls_context: ssl.SSLContext | None = field(repr=False)

    @property
    def address(self) -> str:
        """Names the server in messages."""
        return self.path or f"{self.host}:{self.port}"


def parse_endpoint(url: str, tls_context: ssl.SSLContext | None = None) -> Endpoint:
    """Read a URL. ``tls_context`` replaces the one that ``ssl_…`` options would make. Raises ConfigError."""
    try:
        settings = _read(url)
        path = urlsplit(url).path.strip("/")
    except ValueError:
        # The parser's own message may quote a part of the URL, and with it a password.
        raise ConfigError("the Redis URL cannot be read; it looks like redis://user:password@host:6379/0") from None
    unknown = sorted(settings.keys() - {*_OPTIONS, *_OF_THE_URL})
    if unknown:
        raise ConfigError(
            f"the Redis URL has options that are not supported: {', '.join(unknown)}; known are {', '.join(_OPTIONS)}"
        )
    by_socket = "path" in settings
    if by_socket != url.startswith("unix://"):
        raise ConfigError("a Redis URL of the form unix:// names the path of the socket, and only it does")
    if not by_socket and path and not path.isdecimal():
        raise ConfigError("the path of a Redis URL is the number of the database")
    database = settings.get("db", 0)
    if database < 0:
        raise ConfigError("the number of the database in the Redis URL is negative")
    if tls_context is not None and (tls_context.verify_mode != ssl.CERT_REQUIRED or not tls_context.check_hostname):
        raise ConfigError("the TLS context for Redis must verify the certificate and the host name of the server")
    secure = issubclass(settings.get("connection_class", object), SSLConnection)
    return Endpoint(
        host="" if by_socket else settings.get("host", "localhost"),
        port=0 if by_socket else settings.get("port", 6379),
        path=settings.get("path", ""),
        database=database,
        username=settings.get("username"),
        password=settings.get("password"),
        client_name=settings.get("client_name", "dispatcher"),
        tls_context=(tls_context or _verifying_context(settings)) if secure else None,
    )


def _verifying_context(settings: Mapping[str, Any]) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.get("ssl_ca_certs"))
        context.options |= ssl.OP_NO_RENEGOTIATION
        if "ssl_certfile" in settings:
            context.load_cert_chain(settings["ssl_certfile"], settings.get("ssl_keyfile"))
    except OSError as error:
        raise ConfigError("the certificate or key files named by the Redis URL cannot be read") from error
    return context
