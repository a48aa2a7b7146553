"""The schema's loader."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
import yoyo.exceptions

import migrations
from dispatcher.errors import ConfigError, StoreUnavailable

FreshDatabase = Callable[[], str]


def tables(url: str) -> set[str]:
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
    return {name for (name,) in rows}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two small migrations. Its name has the characters a glob would stumble over."""
    folder = tmp_path / "with [brackets]*"
    folder.mkdir()
    (folder / "0001_one.sql").write_text("-- depends:\nCREATE TABLE one (a int); CREATE TABLE uno (a int);")
    (folder / "0002_two.sql").write_text("-- depends: 0001_one\nCREATE TABLE two (a int);")
    return folder


def test_up_applies_everything_once(fresh_database: FreshDatabase) -> None:
    url = fresh_database()
    before = migrations.status(url)
    applied = migrations.up(url)
    after = migrations.status(url)

    assert before.applied == ()
    assert tuple(applied) == before.pending == after.applied
    assert after.pending == after.unknown == ()
    assert "notifications" in tables(url)
    assert migrations.up(url) == []


def test_looking_changes_nothing(fresh_database: FreshDatabase) -> None:
    url = fresh_database()
    migrations.status(url)
    with pytest.raises(ConfigError, match="run `dispatcher migrate up`"):
        migrations.check(url)

    assert tables(url) == set()


def test_a_complete_schema_passes_the_check(database_url: str) -> None:
    migrations.check(database_url)


def test_a_newer_schema_is_refused_and_left_alone(fresh_database: FreshDatabase, folder: Path) -> None:
    url = fresh_database()
    migrations.up(url, folder=folder)
    (folder / "0002_two.sql").unlink()
    (folder / "0003_three.sql").write_text("CREATE TABLE three (a int);")

    assert migrations.status(url, folder=folder) == migrations.Status(("0001_one",), ("0003_three",), ("0002_two",))
    for refuse in (migrations.up, migrations.check):
        with pytest.raises(ConfigError, match=r"newer than this program \(it has 0002_two\): upgrade"):
            refuse(url, folder=folder)
    assert "three" not in tables(url)


def test_a_migration_that_fails_leaves_nothing_of_itself_and_can_be_tried_again(
    fresh_database: FreshDatabase, folder: Path
) -> None:
    url = fresh_database()
    (folder / "0002_two.sql").write_text("CREATE TABLE two (a int); CREATE TABLE two (a int);")
    with pytest.raises(migrations.MigrationFailed, match='the schema could not be migrated: relation "two" already exists'):
        migrations.up(url, folder=folder)

    assert migrations.status(url, folder=folder).applied == ("0001_one",)
    assert "two" not in tables(url)

    (folder / "0002_two.sql").write_text("CREATE TABLE two (a int);")

    assert migrations.up(url, folder=folder) == ["0002_two"]


def test_the_words_of_a_failing_migration_never_repeat_a_value(fresh_database: FreshDatabase, folder: Path) -> None:
    url = fresh_database()
    (folder / "0002_two.sql").write_text("SELECT 'ada@example.org'::int;")
    with pytest.raises(migrations.MigrationFailed, match="InvalidTextRepresentation") as failure:
        migrations.up(url, folder=folder)

    assert "ada@" not in str(failure.value)


def test_the_mark_commits_with_its_migration(fresh_database: FreshDatabase, folder: Path) -> None:
    """A crash between the two would leave a table that the next start fails over: here the mark itself fails."""
    url = fresh_database()
    (folder / "0002_two.sql").write_text("CREATE TABLE two (a int); ALTER TABLE _yoyo_migration RENAME TO away;")
    with pytest.raises(migrations.MigrationFailed, match="_yoyo_migration"):
        migrations.up(url, folder=folder)

    assert "two" not in tables(url)


def test_a_migration_may_ask_to_run_outside_a_transaction(fresh_database: FreshDatabase, folder: Path) -> None:
    url = fresh_database()
    (folder / "0003_index.sql").write_text("-- transactional: false\nCREATE INDEX CONCURRENTLY one_a ON one (a);")

    assert migrations.up(url, folder=folder)[-1] == "0003_index"
    assert migrations.up(url, folder=folder) == []


def test_a_migration_that_depends_on_a_missing_one_is_not_passed_over(fresh_database: FreshDatabase, folder: Path) -> None:
    url = fresh_database()
    (folder / "0003_lost.sql").write_text("-- depends: 0002_lost\nCREATE TABLE three (a int);")
    with pytest.raises(yoyo.exceptions.BadMigration):
        migrations.up(url, folder=folder)


def test_starts_that_race_apply_each_migration_once(fresh_database: FreshDatabase) -> None:
    """Both wait for the lock that this test holds, so both have seen an empty database before either works."""
    url = fresh_database()
    done: list[list[str]] = []
    racers = [threading.Thread(target=lambda: done.append(migrations.up(url))) for _ in range(2)]
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", [migrations.LOCK])
        for racer in racers:
            racer.start()
        waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query ~ %s AND pid <> %s"
        while connection.execute(waiting, ["pg_try_advisory_lock", connection.info.backend_pid]).fetchone() != (2,):
            pass
    for racer in racers:
        racer.join()

    assert sorted(map(len, done)) == [0, len(migrations.status(url).applied)]


def test_a_migration_in_another_process_that_never_ends_is_not_waited_for_for_ever(
    fresh_database: FreshDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = fresh_database()
    monkeypatch.setattr(migrations, "OTHERS_DEADLINE_S", 0.001)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", [migrations.LOCK])
        with pytest.raises(StoreUnavailable, match="the schema is busy"):
            migrations.up(url)


def test_every_migration_has_a_rollback_that_undoes_it(fresh_database: FreshDatabase) -> None:
    url = fresh_database()
    names = migrations.up(url)
    with psycopg.connect(url, autocommit=True) as connection:
        for name in reversed(names):
            connection.execute((migrations.FOLDER / f"{name}.rollback.sql").read_bytes())
        connection.execute("TRUNCATE _yoyo_migration")

    assert {name for name in tables(url) if "yoyo" not in name} == set()
    assert migrations.up(url) == names


def test_a_server_that_is_away_is_one_clear_line() -> None:
    with pytest.raises(StoreUnavailable, match="could not be reached: .*Connection refused") as failure:
        migrations.status("postgresql://user:hush@127.0.0.1:1/database")

    assert "\n" not in str(failure.value)
    assert "hush" not in str(failure.value)


@pytest.mark.parametrize("url", ["nonsense hush", "http://user:hush@host/", "postgresql://user:hush@[::1/db"])
def test_a_url_that_is_none_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ConfigError, match="DISPATCHER_POSTGRES_URL") as failure:
        migrations.up(url)

    assert "hush" not in str(failure.value)
