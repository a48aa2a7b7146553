"""What ``dispatcher serve`` says when it can not start: one clear line and a status that is not zero, never a password."""

from __future__ import annotations

import os
import socket
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import trio

from actors.embedded.postgres import running_postgres
from dispatcher.config import from_mapping
from dispatcher_http.cli import main
from dispatcher_http.serving import open_servers, open_service
from dispatcher_sandbox.sandbox import open_sandbox
from running import KEYS, dispatching, environment, http_client, own_root_logger, provider

OTHER_KEY = b64encode(b"x" * 32).decode()


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    """The command takes the root logger over."""
    with own_root_logger():
        yield


Start = Callable[..., str]


@pytest.fixture
def fail_to_start(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Start:
    """Run ``dispatcher serve`` with settings with which it must not start; returns the one line it says."""

    def start(settings: dict[str, str]) -> str:
        for name in os.environ:
            if name.startswith("DISPATCHER_"):
                monkeypatch.delenv(name)
        monkeypatch.setenv("HOME", str(tmp_path))
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        status = main(["serve"])
        out, err = capfd.readouterr()

        assert status == 1
        assert out == ""
        said = [line for line in err.splitlines() if " INFO " not in line and " WARNING " not in line]
        assert len(said) == 1, err
        assert said[0].startswith("Error: ")
        assert "hush" not in err
        return said[0].removeprefix("Error: ")

    return start


def test_a_dead_postgres(fail_to_start: Start, redis_url: str) -> None:
    line = fail_to_start(environment("postgresql://user:hush@127.0.0.1:1/database", redis_url))

    assert line.startswith("Postgres could not be reached: ")
    assert "127.0.0.1" in line


def test_a_dead_redis(fail_to_start: Start, database_url: str) -> None:
    line = fail_to_start(environment(database_url, "redis://user:hush@127.0.0.1:1/0"))

    assert line.startswith("Redis at 127.0.0.1:1")


def test_a_silent_redis(fail_to_start: Start, database_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}"
        line = fail_to_start(environment(database_url, url, redis_connect_deadline_s="0.3", redis_command_deadline_s="0.3"))

    assert line.startswith("Redis at 127.0.0.1:")


def test_a_redis_that_wants_a_password(fail_to_start: Start, database_url: str, redis_url: str) -> None:
    path, _, query = redis_url.removeprefix("unix://").partition("?")
    line = fail_to_start(environment(database_url, f"unix://user:hush@{path}?{query}", redis_connect_deadline_s="0.5"))

    assert line.startswith("Redis at ")


def test_another_key_under_a_known_name(fail_to_start: Start, database_url: str, redis_url: str) -> None:
    async def start_once() -> None:
        async with dispatching(database_url, redis_url):
            pass

    trio.run(start_once)
    line = fail_to_start(environment(database_url, redis_url, encryption_keys=f"k1:{OTHER_KEY}"))

    assert line.startswith("DISPATCHER_ENCRYPTION_KEYS: the key 'k1' is not the one this database was set up with")
    assert OTHER_KEY not in line


@pytest.mark.parametrize(
    ("keys", "told"),
    [(f"k2:{OTHER_KEY}", "sealed with 'k1', which is not among the keys"), ("", "credentials are stored in this database")],
)
def test_keys_without_the_one_in_use(fail_to_start: Start, database_url: str, redis_url: str, keys: str, told: str) -> None:
    async def configure() -> None:
        async with open_sandbox() as sandbox, dispatching(database_url, redis_url, [sandbox]) as running:
            await (await running.customer("acme")).add_provider(sandbox.url)

    trio.run(configure)
    line = fail_to_start(environment(database_url, redis_url, encryption_keys=keys))

    assert line.startswith("DISPATCHER_ENCRYPTION_KEYS: ")
    assert told in line


@pytest.mark.parametrize("keys", ["hush", "k1:hush", "k1:aHVzaA=="])
def test_a_key_that_is_none(fail_to_start: Start, database_url: str, redis_url: str, keys: str) -> None:
    assert fail_to_start(environment(database_url, redis_url, encryption_keys=keys)).startswith("DISPATCHER_ENCRYPTION_KEYS: ")


def test_a_newer_schema(fail_to_start: Start, database_url: str, redis_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("UPDATE _yoyo_migration SET migration_id = '9999_future'")

    assert fail_to_start(environment(database_url, redis_url)).startswith("the database's schema is newer than this program")


def test_a_schema_that_was_never_made(fail_to_start: Start, fresh_database: Callable[[], str], redis_url: str) -> None:
    assert fail_to_start(environment(fresh_database(), redis_url)).endswith("run `dispatcher migrate up`")


def test_a_variable_that_does_not_exist(fail_to_start: Start, database_url: str, redis_url: str) -> None:
    line = fail_to_start(environment(database_url, redis_url, listener_bufer_max="7"))

    assert line == "DISPATCHER_LISTENER_BUFER_MAX: no such setting; did you mean DISPATCHER_LISTENER_BUFFER_MAX?"


def test_a_port_in_use(fail_to_start: Start, database_url: str, redis_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        line = fail_to_start(environment(database_url, redis_url, port=str(port)))

    assert line.startswith(f"cannot listen on 127.0.0.1 port {port} (")


def test_an_address_that_is_not_ours(fail_to_start: Start, database_url: str, redis_url: str) -> None:
    assert fail_to_start(environment(database_url, redis_url, host="192.0.2.1")).startswith("cannot listen on 192.0.2.1 port 0 (")


def test_a_data_folder_that_cannot_be_one(fail_to_start: Start, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    line = fail_to_start(environment(data_dir=str(tmp_path / "file")))

    assert line.startswith(f"the data folder {tmp_path}/file/postgres cannot be used: ")


def test_a_data_folder_in_use(fail_to_start: Start, servers_folder: Path, tmp_path: Path) -> None:
    data_dir = servers_folder / tmp_path.name
    with running_postgres(data_dir, durable=False):
        line = fail_to_start(environment(data_dir=str(data_dir)))

    assert line.startswith(f"the data folder {data_dir}/postgres is in use by process {os.getpid()}: ")


# --- what is served -----------------------------------------------------------------------------------------


async def test_configured_servers_are_used_and_nothing_is_started(database_url: str, redis_url: str, tmp_path: Path) -> None:
    config = from_mapping(environment(database_url, redis_url, data_dir=str(tmp_path / "data")))
    async with open_servers(config) as complete:
        assert complete == config

    assert not (tmp_path / "data").exists()


async def test_one_server_may_be_configured_and_the_other_private(
    database_url: str, servers_folder: Path, tmp_path: Path
) -> None:
    data_dir = servers_folder / tmp_path.name
    config = from_mapping(environment(database_url, None, data_dir=str(data_dir)))
    async with open_servers(config) as complete, open_service(complete) as service, http_client() as client:
        ready = await client.get(f"{service.url}/readyz")

    assert ready.status_code == 200
    assert complete.postgres.url == database_url
    assert [path.name for path in data_dir.iterdir()] == ["valkey"]


async def test_without_keys_everything_works_but_storing_credentials(database_url: str, redis_url: str) -> None:
    async with dispatching(database_url, redis_url, encryption_keys="") as running:
        acme = await running.customer("acme")
        refused = await acme.call("POST", "providers", provider("https://api.sendgrid.com"))
        templates = await acme.get("templates")

    assert (refused.status_code, refused.json()["code"]) == (503, "encryption_keys_missing")
    assert templates["items"] == []


@pytest.mark.parametrize("host", ["0.0.0.0", "::1", "localhost"])
async def test_its_url_can_be_reached(database_url: str, redis_url: str, host: str) -> None:
    async with dispatching(database_url, redis_url, host=host) as running:
        assert (await running.client.get(f"{running.url}/healthz")).status_code == 200


async def test_keys_rotate_while_it_runs(database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """New key in front, restart, rotate, drop the old one: mails go out all along."""
    both, new = f"k2:{OTHER_KEY},{KEYS}", f"k2:{OTHER_KEY}"

    def rotate() -> int:
        for name, value in environment(database_url, redis_url, encryption_keys=both).items():
            monkeypatch.setenv(name, value)
        return main(["credentials", "rotate"])

    async with open_sandbox() as sandbox:
        async with dispatching(database_url, redis_url, [sandbox]) as running:
            await (await running.customer("acme")).add_provider(sandbox.url)
        async with dispatching(database_url, redis_url, [sandbox], encryption_keys=both) as running:
            acme = await running.customer("acme")
            async with acme.listen() as feed:
                await feed.outcomes([await acme.send("ada@example.org")])
                assert await trio.to_thread.run_sync(rotate) == 0
                await feed.outcomes([await acme.send("ada@example.org")])
        async with dispatching(database_url, redis_url, [sandbox], encryption_keys=new) as running:
            acme = await running.customer("acme")
            async with acme.listen() as feed:
                outcomes = await feed.outcomes([await acme.send("ada@example.org")])

    assert set(outcomes.values()) == {"notification.delivered"}
    assert sandbox.ledger.accepted == 3


def test_a_rotation_needs_a_key(
    database_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DISPATCHER_POSTGRES_URL", database_url)

    assert main(["credentials", "rotate"]) == 1
    assert capsys.readouterr().err == "Error: DISPATCHER_ENCRYPTION_KEYS is not set: there is no key to rotate to\n"
