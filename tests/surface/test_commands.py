"""The sub-commands, on a real Postgres: a configured one, and the private one of a data folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import orjson
import psycopg
import pytest

import migrations
from actors.embedded.folder import in_use
from actors.embedded.postgres import running_postgres
from actors.store import api_keys
from dispatcher_http.cli import main


class Result(NamedTuple):
    status: int
    out: str
    err: str


Run = Callable[..., Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    for name in os.environ:
        if name.startswith("DISPATCHER_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))

    def run(*arguments: str) -> Result:
        capsys.readouterr()
        status = main(arguments)
        return Result(status, *capsys.readouterr())

    return run


@pytest.fixture
def configured(run: Run, monkeypatch: pytest.MonkeyPatch, database_url: str) -> Run:
    """With a URL, and the organization acme."""
    monkeypatch.setenv("DISPATCHER_POSTGRES_URL", database_url)
    assert run("organizations", "create", "acme", "--name", "Acme, Inc.", "--locale", "de").status == 0
    return run


@pytest.fixture
def data_dir(run: Run, monkeypatch: pytest.MonkeyPatch, servers_folder: Path, tmp_path: Path) -> Iterator[Path]:
    path = servers_folder / tmp_path.name
    monkeypatch.setenv("DISPATCHER_DATA_DIR", str(path))
    yield path
    assert not in_use(path / "postgres")


def test_an_organization_is_created_once_and_listed(configured: Run) -> None:
    again = configured("organizations", "create", "acme")
    listed = configured("organizations", "list")

    assert again == (1, "", "Error: the organization acme exists already\n")
    assert listed.out.splitlines()[1].split()[:2] == ["acme", "de"]
    assert listed.out.splitlines()[1].endswith("Acme, Inc.")


@pytest.mark.parametrize("id", ["Acme", "a b", "", "-a", "a" * 65, "a/b"])
def test_an_id_that_could_not_stand_in_a_url_is_refused(run: Run, id: str) -> None:
    result = run("organizations", "create", "--", id)

    assert result.status == 2
    assert "1 to 64 of a-z 0-9 - _" in result.err


def test_a_new_key_is_printed_alone_so_that_a_shell_can_take_it(configured: Run, database_url: str) -> None:
    created = configured("keys", "create", "acme", "--name", "ticketing", "--scope", "stream:read")

    key = created.out.removesuffix("\n")
    assert api_keys.is_key(key.encode())
    assert "not stored" in created.err
    with psycopg.connect(database_url) as connection:
        row = connection.execute("SELECT key_hash, scopes, name FROM api_keys").fetchone()
    assert row == (api_keys.digest(key.encode()), ["stream:read"], "ticketing")


def test_a_key_may_do_everything_unless_scopes_are_given(configured: Run, database_url: str) -> None:
    configured("keys", "create", "acme")

    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT scopes FROM api_keys").fetchone() == ([str(scope) for scope in api_keys.Scope],)


def test_keys_are_listed_without_the_keys(configured: Run) -> None:
    key = configured("keys", "create", "acme", "--scope", "stream:read", "--scope", "templates:read").out.strip()
    everything = configured("keys", "create", "acme", "--name", "all").out.strip()
    listed = configured("keys", "list", "acme")

    assert listed.status == 0
    assert key not in listed.out
    assert everything not in listed.out
    _, first, second = listed.out.splitlines()
    assert first.split()[-1] == "stream:read,templates:read"
    assert second.split()[-2:] == ["everything", "all"]


def test_a_revoked_key_is_found_no_more_and_stays_listed(configured: Run, database_url: str) -> None:
    configured("keys", "create", "acme")
    id = configured("keys", "list", "acme").out.splitlines()[1].split()[0]

    assert configured("keys", "revoke", "acme", id).status == 0
    assert configured("keys", "revoke", "acme", id).status == 1
    assert configured("keys", "list", "acme").out.splitlines()[1].split()[3] != "-"
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT revoked_at IS NOT NULL FROM api_keys").fetchone() == (True,)


def test_a_key_given_where_its_id_belongs_is_not_repeated(configured: Run) -> None:
    key = configured("keys", "create", "acme").out.strip()
    result = configured("keys", "revoke", "acme", key)

    assert result.status == 2
    assert key not in result.err


@pytest.mark.parametrize("command", ["create", "list"])
def test_keys_of_an_organization_that_does_not_exist_are_refused(configured: Run, command: str) -> None:
    result = configured("keys", command, "nobody")

    assert result.status == 1
    assert "dispatcher organizations create nobody" in result.err


def test_migrate_brings_an_empty_database_up_and_status_tells(
    run: Run, monkeypatch: pytest.MonkeyPatch, fresh_database: Callable[[], str]
) -> None:
    monkeypatch.setenv("DISPATCHER_POSTGRES_URL", fresh_database())
    before, applied, after, again = run("migrate", "status"), run("migrate", "up"), run("migrate", "status"), run("migrate", "up")

    assert before.status == 1
    assert before.out.startswith("pending  0001_first_schema\n")
    assert "dispatcher migrate up" in before.err
    assert applied.status == 0
    assert applied.out == before.out.replace("pending", "applied") == after.out
    assert after.status == 0
    assert again == (0, "", "The schema is up to date.\n")


def test_a_newer_schema_is_told_and_refused(configured: Run, database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("UPDATE _yoyo_migration SET migration_id = '9999_future' WHERE migration_id = '0001_first_schema'")

    status = configured("migrate", "status")
    assert status.status == 1
    assert "unknown  9999_future\n" in status.out
    assert "upgrade" in status.err
    for command in (("migrate", "up"), ("organizations", "list")):
        result = configured(*command)
        assert result.status == 1
        assert result.err.startswith("Error: the database's schema is newer")


def test_a_configured_database_is_never_migrated_on_the_way(
    run: Run, monkeypatch: pytest.MonkeyPatch, fresh_database: Callable[[], str]
) -> None:
    url = fresh_database()
    monkeypatch.setenv("DISPATCHER_POSTGRES_URL", url)
    result = run("organizations", "list")

    assert result.status == 1
    assert "run `dispatcher migrate up`" in result.err
    assert migrations.status(url).applied == ()


def test_a_configured_server_that_is_away_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPATCHER_POSTGRES_URL", "postgresql://user:hush@127.0.0.1:1/database")
    result = run("organizations", "list")

    assert result.status == 1
    assert result.err.startswith("Error: ")
    assert result.err.count("\n") == 1
    assert "hush" not in result.err


def test_without_a_url_the_data_folder_serves_from_the_first_command_on(run: Run, data_dir: Path) -> None:
    created = run("organizations", "create", "acme")
    listed = run("organizations", "list")

    assert created == (0, "acme\n", "")
    assert listed.out.splitlines()[1].startswith("acme ")


def test_a_second_terminal_works_on_the_running_dispatchers_data(run: Run, data_dir: Path) -> None:
    with running_postgres(data_dir, durable=False) as url:
        result = run("organizations", "create", "acme")
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT id FROM organizations").fetchall() == [("acme",)]

    assert result.status == 0


def test_a_person_is_exported_and_then_erased_for_good(configured: Run, database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("INSERT INTO users (organization_id, id, locale) VALUES ('acme', 'ada', 'de')")
        connection.execute(
            "INSERT INTO notifications (id, organization_id, channel, attempts_max, created_at, updated_at, user_id, recipient, "
            "payload) SELECT gen_random_uuid(), 'acme', 'email', 8, now(), now(), 'ada', 'ada@example.org', '{}' "
            "FROM generate_series(1, 251)"
        )

    exported = [orjson.loads(line) for line in configured("users", "export", "acme", "ada").out.splitlines()]
    refused = configured("users", "erase", "acme", "ada", "--no")
    erased = configured("users", "erase", "acme", "ada", "--yes")

    assert exported[0]["user"]["locale"] == "de"
    assert [len(page["notifications"]["items"]) for page in exported] == [250, 1]
    assert refused.status != 0
    assert orjson.loads(erased.out) == {
        "status": "erased", "users": 1, "contact_points": 0, "preferences": 0, "digests": 0, "notifications": 251,
        "canceled": 251, "sending": 0,
    }  # fmt: skip
    assert configured("users", "export", "acme", "ada") == (1, "", "Error: acme has nothing of a user of this id\n")
    assert configured("users", "erase", "nobody", "ada", "--yes").err == "Error: there is no organization nobody\n"
    assert "must be 1 to 255 bytes" in configured("users", "export", "acme", "a/b").err


def test_the_history_is_listed_by_partition(configured: Run, database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE notification_history_7_20260301 PARTITION OF notification_history_7 "
            "FOR VALUES FROM ('2026-03-01 00:00:00+00') TO ('2026-03-02 00:00:00+00')"
        )
    result = configured("history")

    header, row = result.out.splitlines()
    assert header.split() == ["KEPT", "DAYS", "FROM", "BEFORE", "ROWS", "MIB", "DROPPED", "AFTER"]
    assert row.split() == ["7", "2026-03-01", "2026-03-02", "0", "0.0", "2026-03-09", "01:00"]
