"""The warden: runs one server, and stops it when whoever asked for the server is gone, however that went.

    dispatcher ──lifeline (a pipe)──▶ warden ──parent-death signal──▶ server

The warden's standard input is a pipe whose other end only the dispatcher holds. When it closes (a clean stop, a crash, a
SIGKILL) the warden asks the server to stop, insists after a while, and then goes too. If the warden itself is killed, the
kernel signals the server (on Linux). It also gives up root's rights for a server that refuses to run as root.

This file is a program of its own: standard library only, run in isolated mode, so that it starts in 20 ms and shares no
state with the dispatcher. Its one argument is an :class:`Order` as JSON. It exits with the server's status.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
from typing import TypedDict

PR_SET_PDEATHSIG, PR_SET_KEEPCAPS, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE = 1, 8, 47, 2
CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 1, 2
CAPABILITY_VERSION_3 = 0x20080522


class Order(TypedDict):
    """What to run and how to end it."""

    command: list[str]
    cwd: str
    identity: tuple[int, int] | None
    """Run as this user and group instead of root."""
    keep_fds: list[int]
    """Passed on to the server: as long as any process of it lives, the locks behind them are held."""
    stop_signals: list[int]
    """Sent in this order, each after the grace of the one before; SIGKILL comes last."""
    grace_s: float
    remove: str | None
    """A folder to remove when the server is gone."""


class _CapabilityHeader(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _CapabilitySets(ctypes.Structure):
    _fields_ = [("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32)]


def keep_reach(libc: ctypes.CDLL) -> None:
    """After root's rights are dropped, keep the one of walking through folders closed to others.

    The data folder of root is closed to everybody else, and so may be the folder of the server's own program (a home
    folder, a temporary one). Opening those folders up would show their content to strangers; this shows it to the server.
    """
    header = _CapabilityHeader(CAPABILITY_VERSION_3, 0)
    sets = (_CapabilitySets * 2)()
    if libc.capget(ctypes.byref(header), ctypes.byref(sets)):
        raise OSError(ctypes.get_errno(), "capget")
    for capability in (CAP_DAC_READ_SEARCH, CAP_DAC_OVERRIDE):
        if sets[0].permitted & (1 << capability):
            break
    else:
        raise PermissionError("this root may not read other users' folders (no CAP_DAC_OVERRIDE)")
    for index in range(2):
        sets[index].effective = sets[index].permitted = sets[index].inheritable = (1 << capability) if index == 0 else 0
    if libc.capset(ctypes.byref(header), ctypes.byref(sets)):
        raise OSError(ctypes.get_errno(), "capset")
    if libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability, 0, 0):
        raise OSError(ctypes.get_errno(), "PR_CAP_AMBIENT")


def environment() -> dict[str, str]:
    """Ours without what would change the server's mind, and without the dispatcher's secrets."""
    foreign = ("PG", "LC_", "LANG", "DISPATCHER_")
    return {name: value for name, value in os.environ.items() if not name.startswith(foreign)} | {"LC_ALL": "C"}


def start(order: Order) -> subprocess.Popen[bytes]:
    """Start the server so that it dies with this process."""
    on_linux = sys.platform == "linux"
    libc = ctypes.CDLL(None, use_errno=True)
    warden = os.getpid()
    identity = order["identity"]

    def in_the_child() -> None:
        # Changing the user clears both settings, so they are made here, after that and before exec.
        if identity is not None and on_linux:
            keep_reach(libc)
        if on_linux:
            libc.prctl(PR_SET_PDEATHSIG, order["stop_signals"][0], 0, 0, 0)
            if os.getppid() != warden:
                os._exit(1)

    if identity is not None and on_linux:
        libc.prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0)
    return subprocess.Popen(
        order["command"],
        cwd=order["cwd"],
        env=environment(),
        stdin=subprocess.DEVNULL,
        pass_fds=order["keep_fds"],
        preexec_fn=in_the_child,  # noqa: PLW1509 - this process has one thread
        user=None if identity is None else identity[0],
        group=None if identity is None else identity[1],
        extra_groups=None if identity is None else [],
    )


def stop(server: subprocess.Popen[bytes], order: Order) -> None:
    """Ask, insist, kill."""
    for number in [*order["stop_signals"], signal.SIGKILL]:
        server.send_signal(number)
        try:
            server.wait(order["grace_s"])
        except subprocess.TimeoutExpired:
            continue
        return


def main() -> int:
    order: Order = json.loads(sys.argv[1])
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    asked: list[int] = []
    # Handlers, even where nothing is to be done: an ignored signal would stay ignored in the server.
    signal.signal(signal.SIGTERM, lambda number, frame: asked.append(number))
    signal.signal(signal.SIGINT, lambda number, frame: None)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    try:
        server = start(order)
        lifeline = sys.stdin.fileno()
        while server.poll() is None:
            readable, _, _ = select.select([lifeline, woken], [], [])
            if woken in readable:
                os.read(woken, 512)
            if asked or (lifeline in readable and not os.read(lifeline, 512)):
                stop(server, order)
        return server.returncode
    finally:
        if order["remove"] is not None:
            shutil.rmtree(order["remove"], ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
