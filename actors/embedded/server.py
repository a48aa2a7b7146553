"""Starting a private server behind a warden, waiting until it answers, stopping it.

Invariant: between ``Server.launch`` and ``Server.stop`` this process holds the lifeline, a pipe. The kernel closes it when this
process ends in any way, and the warden then stops the server; no signal handler and no ``atexit`` has to run for that.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Self

import trio
from attrs import define, field, frozen

from dispatcher.errors import ConfigError

from . import warden
from .folder import POLL_S, Folder

SOCKET_PATH_BYTES_MAX = 100
"""Of a socket's path. The kernel's limit is 107 on Linux and 103 elsewhere, terminating zero included."""
LOG_BYTES_MAX = 1 << 20
SOCKET_FOLDER_PREFIX = "dispatcher-"


@frozen
class Launch:
    """What to run, in words of the warden's order."""

    name: str
    """For messages: ``Postgres``."""
    command: Sequence[str]
    cwd: Path
    stop_signals: Sequence[signal.Signals]
    identity: tuple[int, int] | None = None
    grace_s: float = 10.0


def package_folder(package: str) -> Path:
    """Where an installed package's files are, without running its code."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ConfigError(f"the package {package} is not installed: install it, or name a server of your own by its URL")
    return Path(spec.origin).parent


def unprivileged_identity(files: Path) -> tuple[int, int] | None:
    """The user and group to run as for a server that refuses root; None when this process is not root.

    Whoever owns the server's files, if they exist. Else ``nobody``, who owns nothing and is known everywhere; the files then lie
    below a folder only root may enter, so other processes of that user reach neither them nor the socket.
    """
    if os.geteuid() != 0:
        return None
    if sys.platform != "linux":
        raise ConfigError("the embedded Postgres does not run as root on this system: start the dispatcher as an ordinary user")
    if files.exists() and (status := files.stat()).st_uid != 0:
        return status.st_uid, status.st_gid
    try:
        entry = pwd.getpwnam("nobody")
    except KeyError:
        raise ConfigError("Postgres refuses to run as root, and this system has no user 'nobody' to run it as") from None
    return entry.pw_uid, entry.pw_gid


def give(path: Path, identity: tuple[int, int] | None) -> None:
    """Hand a file or folder to the user the server runs as."""
    if identity is not None:
        os.chown(path, *identity)


def make_socket_folder(folder: Folder, socket_name: str, identity: tuple[int, int] | None) -> tuple[Path, Path | None]:
    """A folder for the server's socket: below its own, or a temporary one when that path is too long for a socket.

    Returns it and the temporary folder that has to be removed afterwards, if any. The folder above is for its owner only.
    """
    forget_socket_folder(folder)
    below, temporary = folder.path / "run", None
    if len(os.fsencode(below / socket_name)) > SOCKET_PATH_BYTES_MAX:
        temporary = Path(tempfile.mkdtemp(prefix=SOCKET_FOLDER_PREFIX, dir="/tmp"))
        below = temporary / "run"
    shutil.rmtree(below, ignore_errors=True)
    below.mkdir(mode=0o700)
    give(below, identity)
    return below, temporary


def forget_socket_folder(folder: Folder) -> None:
    """Remove the temporary socket folder of an owner that could not do it itself."""
    left = folder.left_behind
    if left is None or left.socket_folder is None:
        return
    path = Path(left.socket_folder)
    if path.name.startswith(SOCKET_FOLDER_PREFIX) and path.is_dir() and path.stat().st_uid == os.geteuid():
        shutil.rmtree(path, ignore_errors=True)


def _open_log(path: Path) -> int:
    if path.exists() and path.stat().st_size > LOG_BYTES_MAX:
        path.replace(path.with_suffix(".log.1"))
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def _last_line(path: Path, offset: int) -> str:
    with path.open("rb") as file:
        file.seek(max(offset, path.stat().st_size - 4096))
        lines = file.read().decode(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else "it said nothing"


@define
class Server:
    """A server behind its warden."""

    launch: Launch
    log: Path
    _log_offset: int
    _warden: subprocess.Popen[bytes] = field(repr=False)

    @classmethod
    def start(cls, launch: Launch, folder: Folder, remove: Path | None = None) -> Self:
        """Start the warden and the server. Returns at once; ``remove`` is a folder to remove when the server has ended."""
        order: warden.Order = {
            "command": list(launch.command),
            "cwd": str(launch.cwd),
            "identity": launch.identity,
            "keep_fds": [folder.server_lock_fd],
            "stop_signals": list(launch.stop_signals),
            "grace_s": launch.grace_s,
            "remove": None if remove is None else str(remove),
        }
        log = folder.path / "server.log"
        descriptor = _open_log(log)
        try:
            offset = os.fstat(descriptor).st_size
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", warden.__file__, json.dumps(order)],
                stdin=subprocess.PIPE,
                stdout=descriptor,
                stderr=descriptor,
                pass_fds=[folder.server_lock_fd],
                start_new_session=True,  # Ctrl-C at the terminal is for the dispatcher, which stops its servers last
            )
        finally:
            os.close(descriptor)
        return cls(launch, log, offset, process)

    def wait_ready(self, is_ready: Callable[[], bool], deadline_s: float) -> None:
        """Block until ``is_ready``. Raises ``ConfigError`` with the server's last words when it ends or the deadline passes."""
        give_up_at = time.monotonic() + deadline_s
        while not is_ready():
            if self._warden.poll() is not None:
                raise self.failure("did not start")
            if time.monotonic() > give_up_at:
                raise self.failure(f"did not answer within {deadline_s:g} s")
            time.sleep(POLL_S)

    def wait_end(self) -> int:
        """Block until the program has ended by itself."""
        return self._warden.wait()

    def failure(self, what: str) -> ConfigError:
        """A sentence for the user, with the last line of the server's log."""
        return ConfigError(f"the embedded {self.launch.name} {what}: {_last_line(self.log, self._log_offset)} (see {self.log})")

    def stop(self) -> None:
        """Let go of the lifeline and wait until the server has ended. Bounded by the warden's own insistence."""
        if self._warden.stdin is not None:
            self._warden.stdin.close()
        patience_s = self.launch.grace_s * (len(self.launch.stop_signals) + 1) + 5
        try:
            self._warden.wait(patience_s)
        except subprocess.TimeoutExpired:
            self._warden.kill()
            self._warden.wait()


@asynccontextmanager
async def in_a_thread(manager: AbstractContextManager[str]) -> AsyncIterator[str]:
    """A blocking context manager for Trio: entered and left in a worker thread, to the end even when cancelled."""
    value = await trio.to_thread.run_sync(manager.__enter__)
    try:
        yield value
    finally:
        with trio.CancelScope(shield=True):  # bounded: see Server.stop
            await trio.to_thread.run_sync(manager.__exit__, None, None, None)
