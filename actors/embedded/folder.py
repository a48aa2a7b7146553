"""Who may use a server's folder: one process at a time, told apart from what an earlier one left behind.

Two locks, both released by the kernel however their holder ends:

- ``owner.lock`` is held by the dispatcher process alone. Held by somebody else: the folder is in use, and starting is refused.
- ``server.lock`` is handed down to the warden, the server and every child of it. Held although nobody owns the folder: an earlier
  server is still on its way out. Both held by us: no process works on the folder's files, so whatever lies there is stale.

While a server runs, ``running.json`` tells other processes of the same user (a command typed at a second terminal) its URL.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

from attrs import asdict, define, field, frozen

from dispatcher.errors import ConfigError

OWNER_LOCK, SERVER_LOCK = "owner.lock", "server.lock"
POLL_S = 0.02
LOOK_S = 0.2
KILL_S = 5.0


@frozen
class Running:
    """What an owner writes down for others once its server answers.

    ``brief`` marks a command that is about to end: its server is worth waiting for, not worth connecting to.
    """

    pid: int
    url: str | None
    brief: bool
    socket_folder: str | None = None


def _try_lock(path: Path) -> int | None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _wait_for_lock(path: Path, patience_s: float) -> int | None:
    give_up_at = time.monotonic() + patience_s
    while (descriptor := _try_lock(path)) is None and time.monotonic() < give_up_at:
        time.sleep(POLL_S)
    return descriptor


def read_running(path: Path) -> Running | None:
    """What the last owner of the folder wrote down. It may be gone: only :func:`in_use` knows."""
    try:
        return Running(**json.loads((path / "running.json").read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


def holders(path: Path) -> set[int]:
    """The processes that have a file open, as far as this system tells (Linux does).

    Asked about ``server.lock`` by the folder's owner: exactly what an earlier server left running. No pid from a file is
    trusted, because by now it may be anybody's.
    """
    wanted = path.stat()
    found: set[int] = set()
    for entry in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):  # closed meanwhile, or somebody else's
            if os.path.samestat(entry.stat(), wanted):
                found.add(int(entry.parts[2]))
    return found - {os.getpid()}


def in_use(path: Path) -> bool:
    """Whether a living process owns the folder."""
    lock = path / OWNER_LOCK
    if not lock.exists():
        return False
    descriptor = _try_lock(lock)
    if descriptor is not None:
        os.close(descriptor)
    return descriptor is None


class FolderInUse(ConfigError):
    """Another living process owns the folder."""


def _write_down(path: Path, running: Running) -> None:
    beside = path / "running.json.new"
    with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(asdict(running), file)
    beside.replace(path / "running.json")


def _own(path: Path, patience_s: float) -> int:
    """The owner's lock. Waits for an owner that is brief."""
    # Not just one try: somebody may be looking whether the folder is in use.
    lock = _wait_for_lock(path / OWNER_LOCK, LOOK_S)
    running = read_running(path)
    if lock is None and running is not None and running.brief:
        lock = _wait_for_lock(path / OWNER_LOCK, patience_s)
    if lock is None:
        who = "another process" if running is None else f"process {running.pid}"
        raise FolderInUse(
            f"the data folder {path} is in use by {who}: stop it, set DISPATCHER_DATA_DIR to another folder, or name a"
            " server of your own with DISPATCHER_POSTGRES_URL and DISPATCHER_REDIS_URL"
        )
    return lock


def _outlast(path: Path, patience_s: float) -> int:
    """The server's lock. Waits for a leftover server, and kills what does not go."""
    lock = _wait_for_lock(path / SERVER_LOCK, patience_s)
    if lock is None:
        for pid in holders(path / SERVER_LOCK):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        lock = _wait_for_lock(path / SERVER_LOCK, KILL_S)
    if lock is None:
        raise ConfigError(f"a server of an earlier run still uses {path} and does not stop")
    return lock


@define
class Folder:
    """The folder, owned. Made by :meth:`take`; ``release`` gives it back."""

    path: Path
    brief: bool
    left_behind: Running | None
    """What an earlier owner wrote down and could not take back."""
    server_lock_fd: int
    _owner_lock_fd: int = field(repr=False)

    @classmethod
    def take(cls, path: Path, *, brief: bool, patience_s: float) -> Self:
        """Own the folder, which is made if need be. Blocks: call it from a thread.

        Waits up to ``patience_s`` for a brief owner, and as long again for a leftover server to end by itself; one that does not
        is killed. Raises ``FolderInUse`` when somebody else stays, ``ConfigError`` when it cannot be used at all.
        """
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.mkdir(mode=0o700, exist_ok=True)
            owner = _own(path, patience_s)
        except OSError as error:
            raise ConfigError(f"the data folder {path} cannot be used: {error.strerror}; set DISPATCHER_DATA_DIR") from error
        try:
            left = read_running(path)
            # At once, because nobody must follow an earlier owner's URL; its temporary folder is still to be removed.
            _write_down(path, Running(os.getpid(), None, brief, None if left is None else left.socket_folder))
            return cls(path, brief, left, _outlast(path, patience_s), owner)
        except BaseException:
            os.close(owner)
            raise

    def announce(self, url: str | None, socket_folder: Path | None = None) -> None:
        """Tell others where the server listens, once it answers."""
        _write_down(self.path, Running(os.getpid(), url, self.brief, None if socket_folder is None else str(socket_folder)))

    def release(self) -> None:
        """Give the folder back. The server must have ended."""
        with suppress(OSError):
            (self.path / "running.json").unlink()
        os.close(self.server_lock_fd)
        os.close(self._owner_lock_fd)
