"""Who may use a server's folder."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from actors.embedded.folder import Folder, in_use, read_running
from dispatcher.errors import ConfigError


def take(path: Path, *, brief: bool = False, patience_s: float = 0.1) -> Folder:
    return Folder.take(path, brief=brief, patience_s=patience_s)


def test_an_owned_folder_is_refused_to_others_naming_the_owner(tmp_path: Path) -> None:
    folder = take(tmp_path / "server")

    with pytest.raises(ConfigError, match=f"in use by process {os.getpid()}") as refusal:
        take(tmp_path / "server")

    assert "\n" not in str(refusal.value)
    assert "DISPATCHER_DATA_DIR" in str(refusal.value)
    folder.release()


def test_nobody_follows_the_url_of_an_owner_that_was_killed(tmp_path: Path) -> None:
    """It still stands there while the next owner waits for the leftover server."""
    killed = take(tmp_path / "server")
    killed.announce("postgresql://gone", tmp_path / "sockets")
    os.close(killed.server_lock_fd)
    os.close(killed._owner_lock_fd)

    folder = take(tmp_path / "server")
    running = read_running(tmp_path / "server")
    folder.release()

    assert running is not None
    assert running.url is None
    assert running.socket_folder == str(tmp_path / "sockets")


def test_a_released_folder_is_free(tmp_path: Path) -> None:
    take(tmp_path / "server").release()

    assert not in_use(tmp_path / "server")
    assert read_running(tmp_path / "server") is None
    take(tmp_path / "server").release()


def test_a_killed_owner_owns_nothing(tmp_path: Path) -> None:
    code = f"""if True:
        from pathlib import Path
        from actors.embedded.folder import Folder
        folder = Folder.take(Path({str(tmp_path / "server")!r}), brief=False, patience_s=0)
        print("taken", flush=True)
        input()
    """
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path.cwd()) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"taken\n"
        assert in_use(tmp_path / "server")
        owner.kill()

    assert not in_use(tmp_path / "server")
    folder = take(tmp_path / "server")
    assert folder.left_behind is not None
    assert folder.left_behind.pid == owner.pid
    folder.release()


def test_a_brief_owner_is_waited_for(tmp_path: Path) -> None:
    brief = take(tmp_path / "server", brief=True)
    taken: list[Folder] = []
    waiting = threading.Thread(target=lambda: taken.append(take(tmp_path / "server", patience_s=60)))
    waiting.start()
    brief.release()
    waiting.join()

    assert len(taken) == 1
    taken[0].release()


def test_a_brief_owner_is_not_waited_for_for_ever(tmp_path: Path) -> None:
    brief = take(tmp_path / "server", brief=True)

    with pytest.raises(ConfigError, match="in use"):
        take(tmp_path / "server", patience_s=0)

    brief.release()


def test_what_an_earlier_owner_left_running_is_killed_when_it_does_not_go_by_itself(tmp_path: Path) -> None:
    (tmp_path / "server").mkdir()
    code = """if True:
        import fcntl, signal
        lock = open("server.lock", "w")
        fcntl.flock(lock, fcntl.LOCK_EX)
        print("held", flush=True)
        signal.pause()
    """
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=tmp_path / "server") as left:
        assert left.stdout is not None
        assert left.stdout.readline() == b"held\n"
        take(tmp_path / "server", patience_s=0).release()

    assert left.returncode == -signal.SIGKILL


def test_a_folder_whose_server_does_not_go_stays_free_for_another_try(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Held by this very process, which is never its own victim."""
    monkeypatch.setattr("actors.embedded.folder.KILL_S", 0)
    (tmp_path / "server").mkdir()
    with (tmp_path / "server" / "server.lock").open("w") as left:
        fcntl.flock(left, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="does not stop"):
            take(tmp_path / "server", patience_s=0)

    assert not in_use(tmp_path / "server")
    take(tmp_path / "server").release()


def test_a_folder_that_cannot_be_made_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(ConfigError, match="cannot be used: .*; set DISPATCHER_DATA_DIR"):
        take(tmp_path / "file" / "server")


def test_the_folder_is_closed_to_other_users(tmp_path: Path) -> None:
    take(tmp_path / "data" / "server").release()

    assert (tmp_path / "data").stat().st_mode & 0o077 == 0
    assert (tmp_path / "data" / "server").stat().st_mode & 0o077 == 0


def test_others_learn_the_url_once_it_is_announced(tmp_path: Path) -> None:
    folder = take(tmp_path / "server")
    before = read_running(tmp_path / "server")
    folder.announce("postgresql://somewhere")
    after = read_running(tmp_path / "server")
    folder.release()

    assert before is not None
    assert before.url is None
    assert after is not None
    assert after.url == "postgresql://somewhere"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"pid": 1}', b"\xff"])
def test_a_damaged_record_counts_as_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "running.json").write_bytes(content)

    assert read_running(tmp_path) is None


def test_a_folder_that_does_not_exist_is_not_in_use(tmp_path: Path) -> None:
    assert not in_use(tmp_path / "nothing")
