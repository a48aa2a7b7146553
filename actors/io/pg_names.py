"""Names of servers become addresses here, so that libpq never calls the blocking resolver.

libpq looks up no host that comes with its ``hostaddr``; the name stays, since the certificate is checked against it. A host that
is a socket's folder or an address already costs nothing. (Hosts in a service file are unknown until libpq reads it, so it does
look those up.)
"""

from __future__ import annotations

import socket

import psycopg
import trio
from psycopg._conninfo_utils import get_param, get_param_def, split_attempts
from psycopg.abc import ConnDict, ConnMapping


async def with_addresses(params: ConnMapping) -> ConnDict:
    """The same parameters with ``host``, ``hostaddr`` and ``port`` lists in step, one entry for each address of each host.

    A host without an address is left out. Raises ``psycopg.OperationalError`` when none is left. Waits for the resolver, in a
    worker thread, only when a host is a name and no address.
    """
    entries: list[tuple[str, str, str]] = []
    failure = ""
    for attempt in split_attempts(params):
        host = get_param(attempt, "host") or ""
        address = get_param(attempt, "hostaddr") or ""
        port = get_param(attempt, "port") or _default_port()
        if address or not host or host.startswith("/"):
            entries.append((host, address, port))
        else:
            try:
                found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
            except OSError as error:
                failure = f"the name {host!r} has no address: {error.strerror}"
            else:
                entries.extend((host, str(sockaddr[0]), port) for *_, sockaddr in found)
    if not entries:
        raise psycopg.OperationalError(failure)
    hosts, addresses, ports = (",".join(column) for column in zip(*entries, strict=True))
    known = {**params, "host": hosts, "port": ports}
    return {**known, "hostaddr": addresses} if addresses.strip(",") else known


def _default_port() -> str:
    defined = get_param_def("port")
    return (defined and defined.compiled) or "5432"
