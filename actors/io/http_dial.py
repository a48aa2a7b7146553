"""Opening a connection: resolve the name, try every address, shake hands. Everything here can only fail as NotSent.

Sockets are the standard library's, non-blocking, waited for through ``trio.lowlevel``: that is what ``trio.socket`` does
inside, without its attempt to receive before the answer can be there (bench/io_http.py measures the difference).
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
from typing import Any

import trio

from actors.io.http_terms import NotSent, Phase
from actors.io.http_wire import RECEIVE_BYTES_MAX
from actors.io.tls import TlsChannel
from dispatcher.http_message import Origin

_CONNECT_CODES = {
    errno.ECONNREFUSED: "refused",
    errno.ETIMEDOUT: "timeout_connect",
    errno.EHOSTUNREACH: "unreachable",
    errno.ENETUNREACH: "unreachable",
    errno.EMFILE: "files_exhausted",
    errno.ENFILE: "files_exhausted",
}
_PLAIN_SCHEMES = frozenset({"http", "smtp", "smtp+plain"})
"""Those whose connections do not begin with TLS."""

Address = tuple[socket.AddressFamily, Any]


async def dial(origin: Origin, tls_context: ssl.SSLContext, deadline_s: float) -> tuple[socket.socket, TlsChannel | None]:
    """Connect to ``origin`` by ``deadline_s`` on Trio's clock. Nothing is left open on failure or cancellation."""
    phase: Phase = "resolve"
    with trio.CancelScope(deadline=deadline_s):
        addresses = await _resolve(origin)
        phase = "connect"
        sock = await _connect_any(addresses, deadline_s)
        if origin.scheme in _PLAIN_SCHEMES:
            return sock, None
        phase = "tls"
        try:
            return sock, await shake_hands(sock, tls_context, origin.host)
        except BaseException:
            sock.close()
            raise
    raise NotSent(phase, f"timeout_{phase}")


async def _resolve(origin: Origin) -> list[Address]:
    try:
        found = await trio.socket.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise NotSent("resolve", "name_unresolved") from error
    return [(family, address) for family, _, _, _, address in found]


async def _connect_any(addresses: list[Address], deadline_s: float) -> socket.socket:
    """The first address that answers. A silent one may only use its share of the time, so that the rest get theirs."""
    problem: OSError | None = None
    for left, address in zip(range(len(addresses), 0, -1), addresses, strict=True):
        now_s = trio.current_time()
        with trio.CancelScope(deadline=now_s + (deadline_s - now_s) / left) as share:
            try:
                return await _connect(address)
            except OverflowError as error:  # a port that cannot be one
                raise NotSent("connect", "connect_failed") from error
            except OSError as error:
                problem = error
        if share.cancelled_caught:
            problem = TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
    code = "connect_failed" if problem is None else _CONNECT_CODES.get(problem.errno or 0, "connect_failed")
    raise NotSent("connect", code) from problem


async def _connect(address: Address) -> socket.socket:
    family, where = address
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            sock.connect(where)
        except BlockingIOError:
            await trio.lowlevel.wait_writable(sock)
            failure = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if failure:
                raise OSError(failure, os.strerror(failure)) from None
    except BaseException:
        sock.close()
        raise
    return sock


async def shake_hands(sock: socket.socket, context: ssl.SSLContext, host: str) -> TlsChannel:
    """Begin TLS on a connected socket. Raises NotSent; the caller has the deadline, and closes the socket."""
    try:
        tls = TlsChannel(context, host)
        done, outgoing = tls.handshake(b"")
        while True:
            await _send_all(sock, outgoing)
            if done:
                break
            received = await _receive(sock)
            if not received:
                raise NotSent("tls", "closed")
            done, outgoing = tls.handshake(received)
    except ssl.SSLCertVerificationError as error:
        raise NotSent("tls", "tls_verify") from error
    except (ssl.SSLError, ValueError) as error:
        raise NotSent("tls", "tls_failed") from error
    except OSError as error:
        raise NotSent("tls", "reset") from error
    return tls


async def _send_all(sock: socket.socket, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[sock.send(rest) :]
        except BlockingIOError:
            await trio.lowlevel.wait_writable(sock)


async def _receive(sock: socket.socket) -> bytes:
    while True:
        await trio.lowlevel.wait_readable(sock)
        try:
            return sock.recv(RECEIVE_BYTES_MAX)
        except BlockingIOError:
            continue
