"""The schema, as plain SQL files applied in the order of their names, and the loader that applies them.

``0002_add_x.sql`` goes up, ``0002_add_x.rollback.sql`` beside it goes down (for developers; the loader only goes up). A file that
was released is never edited. Applying is yoyo-migrations' work, with three things done otherwise:

- one advisory lock of the database instead of a row in a table: it cannot outlive the process that took it
- a migration and the mark that it was applied commit together, so a crash between the two cannot leave a half-known schema
- the URL goes to libpq as it is, so everything libpq understands works: sockets, several hosts, services

A schema that has migrations this code does not know is *newer*: the code refuses to work on it.
"""

from __future__ import annotations

import glob
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import yoyo
from attrs import frozen
from yoyo.backends.core.postgresql import PostgresqlPsycopgBackend
from yoyo.connections import DatabaseURI

from dispatcher.errors import ConfigError, DispatcherError, StoreUnavailable

FOLDER = Path(__file__).parent
TABLE = "_yoyo_migration"
LOCK = 0x6E6F7469  # "noti": any number that other users of the database do not use
NAME = "dispatcher migrate"
CONNECT_DEADLINE_S = 10
OTHERS_DEADLINE_S = 120
"""How long another process may take to migrate before this one gives up."""
ASK_AGAIN_S = 0.1
LOCK_DEADLINE_S = 10
"""How long a migration may wait for a table in use; whoever waits behind it waits as long."""


class MigrationFailed(DispatcherError):
    """Postgres refused a migration, which is undone. The ones before it stay."""


@frozen
class Status:
    """Names of migrations, in order. ``unknown`` were applied by a newer version than this one."""

    applied: tuple[str, ...]
    pending: tuple[str, ...]
    unknown: tuple[str, ...]


class Backend(PostgresqlPsycopgBackend):  # type: ignore[misc]  # untyped library
    """yoyo's backend with our connection, lock and commit."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._ours = connection
        super().__init__(DatabaseURI("postgresql+psycopg", None, None, None, None, connection.info.dbname, {}), TABLE)
        self.has_transactional_ddl = True

    def connect(self, dburi: Any) -> psycopg.Connection[Any]:
        return self._ours

    @contextmanager
    def lock(self, timeout: float = 0) -> Iterator[None]:
        yield  # `up` holds the advisory lock all along

    def apply_one(self, migration: Any, force: bool = False, mark: bool = True) -> None:
        self.ensure_internal_schema_updated()
        migration.load()
        if not migration.use_transactions:
            migration.process_steps(self, "apply")
        with self.transaction():
            if migration.use_transactions:
                migration.process_steps(self, "apply")
            # Without yoyo's log table: it wants the machine's full name, and a resolver may take its time over that.
            self.mark_one(migration, log=False)


@contextmanager
def _connection(url: str) -> Iterator[psycopg.Connection[Any]]:
    try:
        connection = psycopg.connect(url, autocommit=True, connect_timeout=CONNECT_DEADLINE_S, application_name=NAME)
    except psycopg.ProgrammingError:
        # libpq's own words repeat the URL, password included.
        raise ConfigError("DISPATCHER_POSTGRES_URL is not a URL like postgresql://user:password@host:5432/database") from None
    except psycopg.OperationalError as error:
        raise StoreUnavailable(f"Postgres could not be reached: {str(error).strip().splitlines()[0]}") from error
    try:
        yield connection
    except psycopg.errors.LockNotAvailable as error:
        raise StoreUnavailable("the schema is busy: another migration or a long transaction holds it; try again later") from error
    except psycopg.OperationalError as error:
        raise StoreUnavailable(f"Postgres went away meanwhile: {type(error).__name__}") from error
    except psycopg.Error as error:
        # Of data errors only the kind: their words repeat values.
        words = None if (error.sqlstate or "22").startswith("22") else error.diag.message_primary
        raise MigrationFailed(f"the schema could not be migrated: {words or type(error).__name__}") from error
    finally:
        connection.close()


def _take_turn(connection: psycopg.Connection[Any]) -> None:
    """Wait for the lock by asking again: a statement that waits has a snapshot, and an index that is built concurrently waits for
    every snapshot to end, so the two would wait for each other. Raises ``psycopg.errors.LockNotAvailable``."""
    give_up_at_s = time.monotonic() + OTHERS_DEADLINE_S
    while True:
        row = connection.execute("SELECT pg_try_advisory_lock(%s)", [LOCK]).fetchone()
        if row and row[0]:
            return
        if time.monotonic() > give_up_at_s:
            raise psycopg.errors.LockNotAvailable
        time.sleep(ASK_AGAIN_S)


def _known(folder: Path) -> Any:
    # This file lies in the folder too, and yoyo would take it for a migration written in Python.
    return yoyo.read_migrations(glob.escape(str(folder))).filter(lambda migration: migration.is_raw_sql())


def _status(connection: psycopg.Connection[Any], folder: Path) -> Status:
    known = [migration.id for migration in _known(folder)]
    row = connection.execute("SELECT to_regclass(%s) IS NOT NULL", [f'"{TABLE}"']).fetchone()
    rows = connection.execute(f"SELECT migration_id FROM {TABLE}").fetchall() if row and row[0] else []
    done = {name for (name,) in rows}
    return Status(
        tuple(name for name in known if name in done),
        tuple(name for name in known if name not in done),
        tuple(sorted(done - set(known))),
    )


def _refuse_newer(status: Status) -> None:
    if status.unknown:
        raise ConfigError(
            f"the database's schema is newer than this program (it has {', '.join(status.unknown)}): upgrade the dispatcher"
        )


def status(url: str, *, folder: Path = FOLDER) -> Status:
    """Where the database stands. Changes nothing. Raises ``StoreUnavailable``."""
    with _connection(url) as connection:
        return _status(connection, folder)


def check(url: str, *, folder: Path = FOLDER) -> None:
    """Raise ``ConfigError`` unless the schema is exactly the one this code was written for."""
    found = status(url, folder=folder)
    _refuse_newer(found)
    if found.pending:
        raise ConfigError(f"the database lacks the migrations {', '.join(found.pending)}: run `dispatcher migrate up`")


def up(url: str, *, folder: Path = FOLDER) -> list[str]:
    """Apply what is pending and return the names. Starts that race wait for each other; the late ones find nothing to do.

    Each migration is a transaction (unless its file says ``-- transactional: false``). Needs a direct connection, not a pooler
    that changes servers between transactions. Raises ``ConfigError`` when the schema is newer, ``MigrationFailed``,
    ``StoreUnavailable``.
    """
    with _connection(url) as connection:
        _take_turn(connection)
        connection.execute(f"SET lock_timeout = '{LOCK_DEADLINE_S}s'")
        _refuse_newer(_status(connection, folder))
        backend, done = Backend(connection), []
        for migration in backend.to_apply(_known(folder)):
            backend.apply_one(migration)
            done.append(str(migration.id))
        return done
