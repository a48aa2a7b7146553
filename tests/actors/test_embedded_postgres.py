"""The private Postgres: it starts, it stops with its owner, and the next start finds its data."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest

from actors.embedded.folder import Folder, FolderInUse, in_use
from actors.embedded.postgres import embedded_postgres, postgres_for_a_command, running_postgres
from dispatcher.errors import ConfigError

OWNER = """if True:
    import sys
    from pathlib import Path
    from actors.embedded.postgres import running_postgres
    with running_postgres(Path(sys.argv[1]), brief=sys.argv[2] == "brief") as url:
        print(url, flush=True)
        sys.stdin.read()
"""


class Owner:
    """Another process that runs the server of a data folder until it is told to end."""

    def __init__(self, data_dir: Path, kind: str = "lasting") -> None:
        command = [sys.executable, "-c", OWNER, str(data_dir), kind]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        self.data_dir = data_dir

    @property
    def postmaster(self) -> int:
        return int((self.data_dir / "postgres" / "data" / "postmaster.pid").read_text().split()[0])

    @property
    def warden(self) -> int:
        return int(Path(f"/proc/{self.postmaster}/stat").read_text().rsplit(")", 1)[1].split()[1])

    def kill(self) -> None:
        with self.process:
            self.process.kill()


@pytest.fixture
def owner() -> Iterator[Callable[..., Owner]]:
    owners: list[Owner] = []

    def start(data_dir: Path, kind: str = "lasting") -> Owner:
        owners.append(Owner(data_dir, kind))
        return owners[-1]

    yield start
    for started in owners:
        started.kill()


@pytest.fixture
def data_dir(servers_folder: Path, tmp_path: Path) -> Path:
    """Where files are quick, and apart from other tests."""
    return servers_folder / tmp_path.name


def write(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 7 AS value")


def read(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute("SELECT value FROM kept").fetchone()
        assert row is not None
        return int(row[0])


def wait_gone(pid: int) -> None:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    assert select.select([descriptor], [], [], 30)[0], "the process still runs"
    os.close(descriptor)


async def test_data_survives_a_restart(data_dir: Path) -> None:
    async with embedded_postgres(data_dir) as url:
        write(url)
    async with embedded_postgres(data_dir) as url:
        assert read(url) == 7
        with psycopg.connect(url) as connection:
            assert connection.info.dbname == "dispatcher"
            assert connection.info.server_version // 10000 == 18
            assert connection.execute("SHOW fsync").fetchone() == ("on",)
            assert connection.execute("SHOW listen_addresses").fetchone() == ("",)

    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url)


def test_a_second_start_on_the_same_folder_is_refused_at_once(data_dir: Path) -> None:
    with running_postgres(data_dir, durable=False), pytest.raises(ConfigError, match="is in use by process"):
        with running_postgres(data_dir, durable=False):
            pass


def test_the_server_of_a_killed_owner_stops_and_the_next_start_finds_its_data(
    data_dir: Path, owner: Callable[..., Owner]
) -> None:
    first = owner(data_dir)
    write(first.url)
    postmaster = first.postmaster
    first.kill()

    with running_postgres(data_dir, durable=False) as url:
        assert read(url) == 7
    wait_gone(postmaster)


def test_the_server_stops_even_when_its_warden_is_killed_too(data_dir: Path, owner: Callable[..., Owner]) -> None:
    first = owner(data_dir)
    write(first.url)
    postmaster = first.postmaster
    os.kill(first.process.pid, signal.SIGSTOP)
    os.kill(first.warden, signal.SIGKILL)
    first.kill()

    wait_gone(postmaster)
    with running_postgres(data_dir, durable=False) as url:
        assert read(url) == 7


def test_a_server_killed_with_everything_around_it_recovers(
    data_dir: Path, owner: Callable[..., Owner], servers_folder: Path, postgres_url: str
) -> None:
    """Its pid file stays behind, and by then that pid may be anybody's: here it is another Postgres of the same user."""
    first = owner(data_dir)
    write(first.url)
    pid_file = data_dir / "postgres" / "data" / "postmaster.pid"
    stale = pid_file.read_text().splitlines()
    os.kill(first.postmaster, signal.SIGKILL)
    first.kill()
    other = (servers_folder / "postgres" / "data" / "postmaster.pid").read_text().split()[0]
    pid_file.write_text("\n".join([other, *stale[1:]]) + "\n")

    with running_postgres(data_dir, durable=False) as url:
        assert read(url) == 7


def test_a_server_whose_warden_hangs_is_ended_by_the_next_start(data_dir: Path, owner: Callable[..., Owner]) -> None:
    first = owner(data_dir)
    write(first.url)
    postmaster, warden = first.postmaster, first.warden
    os.kill(warden, signal.SIGSTOP)
    first.kill()

    try:
        with running_postgres(data_dir, patience_s=0) as url:
            assert read(url) == 7
            wait_gone(postmaster)
            wait_gone(warden)
    finally:
        with suppress(ProcessLookupError):
            os.kill(warden, signal.SIGCONT)


def test_a_half_made_cluster_is_made_again(data_dir: Path) -> None:
    half_made = data_dir / "postgres" / "data.new"
    half_made.mkdir(parents=True)
    (half_made / "PG_VERSION").write_text("18")

    with running_postgres(data_dir, durable=False) as url:
        write(url)

    assert not half_made.exists()


def test_a_data_folder_whose_path_is_too_long_for_a_socket_works(data_dir: Path) -> None:
    with running_postgres(data_dir / ("long" * 40), durable=False) as url:
        write(url)
        assert read(url) == 7


def test_a_cluster_of_another_version_is_refused_with_what_to_do(data_dir: Path) -> None:
    (data_dir / "postgres" / "data").mkdir(parents=True)
    (data_dir / "postgres" / "data" / "PG_VERSION").write_text("17\n")

    with pytest.raises(ConfigError, match="written by Postgres 17, this is Postgres 18: dump it"):
        with running_postgres(data_dir):
            pass

    assert not in_use(data_dir / "postgres")


def test_a_server_that_refuses_to_start_is_one_clear_line(data_dir: Path) -> None:
    with pytest.raises(ConfigError, match="did not start: .*invalid value for parameter") as refusal:
        with running_postgres(data_dir, durable=False, settings={"max_connections": "many"}):
            pass

    assert "\n" not in str(refusal.value)
    assert not in_use(data_dir / "postgres")


def test_values_of_failing_statements_never_reach_the_log(data_dir: Path) -> None:
    with running_postgres(data_dir, durable=False) as url, psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE people (address text PRIMARY KEY)")
        connection.execute("INSERT INTO people VALUES (%s)", ["ada@example.org"])
        with pytest.raises(psycopg.errors.UniqueViolation):
            connection.execute("INSERT INTO people VALUES (%s)", ["ada@example.org"])
        with pytest.raises(psycopg.errors.InvalidTextRepresentation):
            connection.execute("SELECT 'ada@example.org'::int")

    assert "ada@" not in (data_dir / "postgres" / "server.log").read_text()


def test_a_command_uses_the_server_that_is_running(data_dir: Path, owner: Callable[..., Owner]) -> None:
    running = owner(data_dir)
    write(running.url)

    with postgres_for_a_command(data_dir) as url:
        assert url == running.url
        assert read(url) == 7

    assert read(running.url) == 7


def test_a_command_runs_the_server_itself_when_nobody_does(data_dir: Path) -> None:
    with postgres_for_a_command(data_dir) as url:
        write(url)

    assert not in_use(data_dir / "postgres")


def test_a_command_waits_for_another_command_to_end(data_dir: Path, owner: Callable[..., Owner]) -> None:
    """Its server goes with it, so it is not one to share."""
    other = owner(data_dir, "brief")
    write(other.url)
    assert other.process.stdin is not None
    other.process.stdin.close()

    with postgres_for_a_command(data_dir) as url:
        assert other.process.wait() == 0
        assert read(url) == 7


def test_a_command_does_not_wait_for_ever_for_a_dispatcher_that_never_gets_ready(data_dir: Path) -> None:
    starting = Folder.take(data_dir / "postgres", brief=False, patience_s=0)

    with pytest.raises(FolderInUse, match="is starting"):
        with postgres_for_a_command(data_dir, patience_s=0):
            pass

    starting.release()


def test_the_files_of_an_ordinary_user_stay_that_users_when_root_starts_the_server(data_dir: Path) -> None:
    """As anybody else: nothing changes hands either."""
    with running_postgres(data_dir) as url:
        write(url)
    data = data_dir / "postgres" / "data"
    if os.geteuid() == 0:
        subprocess.run(["chown", "-R", "daemon", str(data)], check=True)
    before = data.stat().st_uid

    with running_postgres(data_dir) as url:
        assert read(url) == 7
        assert Path(f"/proc/{(data / 'postmaster.pid').read_text().split()[0]}").stat().st_uid == before
