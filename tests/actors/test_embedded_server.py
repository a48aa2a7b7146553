"""Starting and stopping a program behind its warden."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from actors.embedded.folder import Folder
from actors.embedded.server import LOG_BYTES_MAX, Launch, Server, in_a_thread, make_socket_folder, package_folder
from dispatcher.errors import ConfigError


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    folder = Folder.take(tmp_path / "server", brief=False, patience_s=0)
    yield folder
    folder.release()


def python(code: str, folder: Folder, *, grace_s: float = 30.0) -> Launch:
    return Launch("Program", [sys.executable, "-c", code], folder.path, [signal.SIGTERM], grace_s=grace_s)


def test_a_program_that_ignores_its_stop_signal_is_killed(folder: Folder) -> None:
    code = "import signal; signal.signal(15, signal.SIG_IGN); open('ready', 'w'); signal.pause()"
    server = Server.start(python(code, folder, grace_s=0.05), folder)
    server.wait_ready((folder.path / "ready").exists, 30)
    server.stop()

    assert server.wait_end() != 0


def test_a_program_gets_its_stop_signal_when_the_lifeline_closes(folder: Folder) -> None:
    code = """if True:
        import signal, sys
        def stop(number, frame):
            open("stopped", "w").write(str(number))
            sys.exit(0)
        signal.signal(signal.SIGTERM, stop)
        open("ready", "w")
        signal.pause()
    """
    server = Server.start(python(code, folder), folder)
    server.wait_ready((folder.path / "ready").exists, 30)
    server.stop()

    assert (folder.path / "stopped").read_text() == str(int(signal.SIGTERM))


def test_a_program_that_ends_before_it_answers_is_an_error_with_its_last_words(folder: Folder) -> None:
    server = Server.start(python("import sys; sys.exit('no room on the device')", folder), folder)

    with pytest.raises(ConfigError, match=r"embedded Program did not start: no room on the device \(see .*server\.log\)"):
        server.wait_ready(lambda: False, 30)
    server.stop()


def test_a_program_that_cannot_be_run_is_an_error(folder: Folder) -> None:
    launch = Launch("Program", [str(folder.path / "missing")], folder.path, [signal.SIGTERM])
    server = Server.start(launch, folder)

    with pytest.raises(ConfigError, match="did not start: .*No such file"):
        server.wait_ready(lambda: False, 30)
    server.stop()


def test_a_program_that_never_answers_is_an_error_after_the_deadline(folder: Folder) -> None:
    server = Server.start(python("import signal; signal.pause()", folder), folder)

    with pytest.raises(ConfigError, match="did not answer within 0 s: it said nothing"):
        server.wait_ready(lambda: False, 0)
    server.stop()


def test_secrets_in_the_environment_stay_with_the_dispatcher(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPATCHER_ENCRYPTION_KEYS", "hush")
    monkeypatch.setenv("PGDATA", "/elsewhere")
    server = Server.start(python("import os; print(sorted(os.environ))", folder), folder)
    server.wait_end()
    server.stop()

    log = (folder.path / "server.log").read_text()
    assert "PATH" in log
    assert "DISPATCHER_ENCRYPTION_KEYS" not in log
    assert "PGDATA" not in log


def test_a_temporary_folder_is_removed_when_the_program_has_ended(folder: Folder, tmp_path: Path) -> None:
    (tmp_path / "temporary" / "deep").mkdir(parents=True)
    server = Server.start(python("pass", folder), folder, remove=tmp_path / "temporary")
    server.wait_end()
    server.stop()

    assert not (tmp_path / "temporary").exists()


def test_the_log_of_earlier_runs_is_bounded(folder: Folder) -> None:
    log = folder.path / "server.log"
    log.write_bytes(b"x" * (LOG_BYTES_MAX + 1))
    server = Server.start(python("print('new')", folder), folder)
    server.wait_end()
    server.stop()

    assert log.read_text() == "new\n"
    assert (folder.path / "server.log.1").stat().st_size == LOG_BYTES_MAX + 1


def test_a_socket_whose_path_is_too_long_lies_in_a_temporary_folder(tmp_path: Path) -> None:
    path = tmp_path / ("long" * 30) / "server"
    folder = Folder.take(path, brief=False, patience_s=0)
    below, temporary = make_socket_folder(folder, "s.sock", None)
    folder.announce(None, temporary)
    os.close(folder.server_lock_fd)
    os.close(folder._owner_lock_fd)  # as if this process had been killed

    assert temporary is not None
    assert below.parent == temporary
    assert len(os.fsencode(below / "s.sock")) < 100
    assert temporary.stat().st_mode & 0o077 == 0

    heir = Folder.take(path, brief=False, patience_s=0)
    _, other = make_socket_folder(heir, "s.sock", None)
    heir.release()

    assert not temporary.exists()
    assert other is not None
    (other / "run").rmdir()
    other.rmdir()


def test_a_missing_package_is_one_clear_line() -> None:
    with pytest.raises(ConfigError, match="no_such_package is not installed"):
        package_folder("no_such_package")


async def test_a_start_that_is_cancelled_is_finished_and_undone() -> None:
    """Entering happens in a thread: cancelling must neither abandon it nor forget to leave."""
    entering, may_enter, left = trio.Event(), threading.Event(), threading.Event()

    @contextmanager
    def server() -> Iterator[str]:
        trio.from_thread.run_sync(entering.set)
        may_enter.wait()
        try:
            yield "url"
        finally:
            left.set()

    async with trio.open_nursery() as nursery:

        async def run() -> None:
            async with in_a_thread(server()):
                await trio.sleep_forever()

        nursery.start_soon(run)
        await entering.wait()
        nursery.cancel_scope.cancel()
        may_enter.set()

    assert left.is_set()
