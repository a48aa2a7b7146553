"""The ways into a sandbox beside HTTP/1.1. Each has a port of its own; what comes in is decided by the same exchange.

So the behaviour, the ledger and the control API are shared, and a test that sends by several ways finds everything in one place.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from dispatcher_sandbox.apns import serve_apns
from dispatcher_sandbox.certificates import Authority
from dispatcher_sandbox.exchange import Exchange
from dispatcher_sandbox.smtp import serve_starttls, serve_tls


class Behind(NamedTuple):
    """What a door opens to. ``clock`` gives Unix seconds; delays wait on Trio's clock."""

    exchange: Exchange
    authority: Authority
    clock: Callable[[], float]


class Door(NamedTuple):
    """One way in."""

    name: str
    """In ``Sandbox.urls``; the command's option is ``--<name>-port``."""
    speaks: str
    """For people."""
    scheme: str
    """Of its URL."""
    port: int
    """Where the command listens unless told otherwise."""
    open: Callable[[Behind], Callable[[socket.socket], Awaitable[None]]]
    """Gives what serves a listening socket until it is cancelled. The listener stays the caller's to close."""


DOORS: tuple[Door, ...] = (
    Door("apns", "APNs (HTTP/2)", "https", 8197, serve_apns),
    Door("smtp", "SMTP submission (STARTTLS)", "smtp", 8587, serve_starttls),
    Door("smtps", "SMTP submission (TLS)", "smtps", 8465, serve_tls),
)
