"""Errors as the real server words them."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import psycopg
import pytest
from psycopg import errors

from actors.io.pg_errors import is_about_content, scrub, unavailable, unreachable
from dispatcher.errors import StoreUnavailable

SECRET = "ada@example.org"
SCHEMA = """
CREATE TABLE people (email text UNIQUE NOT NULL CHECK (email <> 'x' || 'ada@example.org'), age int, team int);
CREATE TABLE teams (id int PRIMARY KEY);
ALTER TABLE people ADD CONSTRAINT team FOREIGN KEY (team) REFERENCES teams;
INSERT INTO people VALUES ('ada@example.org');
CREATE FUNCTION complain(text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no: %', $1; END $$;
"""

Fail = Callable[..., psycopg.Error]


@pytest.fixture
def fail(fresh_database: Callable[[], str]) -> Iterator[Fail]:
    """Runs a statement that fails; returns its error, scrubbed."""
    with psycopg.connect(fresh_database(), autocommit=True) as connection:
        connection.execute(SCHEMA)

        def run(sql: str, *params: object) -> psycopg.Error:
            with pytest.raises(psycopg.Error) as caught:
                connection.execute(sql, params)
            scrub(caught.value)
            return caught.value

        yield run


@pytest.mark.parametrize(
    ("sql", "params", "kind", "text"),
    [
        ("INSERT INTO people VALUES (%s)", (SECRET,), errors.UniqueViolation, 'unique constraint "people_email_key"'),
        ("INSERT INTO people VALUES (%s)", ("x" + SECRET,), errors.CheckViolation, 'check constraint "people_email_check"'),
        (
            "INSERT INTO people (age) VALUES (length(%s))",
            (SECRET,),
            errors.NotNullViolation,
            'column "email" of relation "people"',
        ),
        ("INSERT INTO people VALUES (%s || '1', 1, 7)", (SECRET,), errors.ForeignKeyViolation, 'foreign key constraint "team"'),
        ("SELECT %s::text::int", (SECRET,), errors.InvalidTextRepresentation, "InvalidTextRepresentation"),
        ("SELECT %s::text::json", (SECRET,), errors.InvalidTextRepresentation, "withheld"),
        ("SELECT %s::text::date", (SECRET,), errors.InvalidDatetimeFormat, "withheld"),
        ("SELECT complain(%s::text)", (SECRET,), errors.RaiseException, "withheld"),
        ("SELECT nothing FROM people WHERE email = %s", (SECRET,), errors.UndefinedColumn, 'column "nothing" does not exist'),
        ("SELECT (SELECT 1 UNION SELECT length(%s))", (SECRET,), errors.CardinalityViolation, "more than one row"),
    ],
)
def test_an_error_names_what_was_violated_and_no_value(
    fail: Fail, sql: str, params: tuple[str, ...], kind: type[psycopg.Error], text: str
) -> None:
    error = fail(sql, *params)

    assert type(error) is kind
    assert text in str(error)
    assert f"[SQLSTATE {error.sqlstate}]" in str(error)
    assert "ada" not in str(error)
    assert "ada" not in repr(error)
    assert "DETAIL" not in str(error)


def test_a_scrubbed_error_still_tells_code_which_constraint_it_was(fail: Fail) -> None:
    assert fail("INSERT INTO people VALUES (%s)", SECRET).diag.constraint_name == "people_email_key"


def test_scrubbing_twice_changes_nothing_more(fail: Fail) -> None:
    error = fail("INSERT INTO people VALUES (%s)", SECRET)
    once = str(error)

    scrub(error)

    assert str(error) == once


def test_the_driver_does_not_say_what_it_could_not_convert(postgres_url: str) -> None:
    with psycopg.connect(postgres_url) as connection, pytest.raises(psycopg.DataError) as caught:
        connection.execute("SELECT '20000-01-01'::date").fetchone()
    assert "20000" in str(caught.value)

    scrub(caught.value)

    assert str(caught.value) == "the driver could not convert a value"


def test_other_words_of_the_driver_are_kept() -> None:
    error = psycopg.ProgrammingError("the query has 1 placeholders but 2 parameters were passed")

    scrub(error)

    assert "placeholders" in str(error)


@pytest.mark.parametrize(
    ("sqlstate", "sentence"),
    [
        ("08006", "the connection to Postgres broke"),
        ("40001", "lose against another"),
        ("40003", "does not know"),
        ("40P01", "deadlock"),
        ("55P03", "lock in time"),
        ("25006", "no longer the primary"),
        ("53100", "no disk space"),
        ("53300", "no free connection slots"),
        ("53400", "out of resources"),
        ("57014", "canceled the statement"),
        ("57P01", "shutting down"),
        ("57P03", "starting up"),
        ("58030", "error of its system"),
    ],
)
def test_errors_of_the_server_itself_mean_that_the_store_is_away(sqlstate: str, sentence: str) -> None:
    found = unavailable(errors.lookup(sqlstate)(SECRET))

    assert isinstance(found, StoreUnavailable)
    assert sentence in str(found)
    assert SECRET not in str(found)


@pytest.mark.parametrize("sqlstate", ["23505", "22P02", "42P01", "42501", "0A000", "25P02", "P0001", "XX000"])
def test_errors_of_the_statement_are_not_the_stores_absence(sqlstate: str) -> None:
    assert unavailable(errors.lookup(sqlstate)("x")) is None


@pytest.mark.parametrize(
    ("sqlstate", "about_content"),
    [
        ("22P02", True),
        ("22003", True),
        ("23514", True),
        ("54000", True),
        ("P0001", True),
        ("XX001", True),
        ("08006", False),
        ("25006", False),
        ("25P02", False),
        ("40001", False),
        ("42P01", False),
        ("42501", False),
        ("42703", False),
        ("53100", False),
        ("57P03", False),
    ],
)
def test_only_what_may_be_a_rows_own_fault_is_held_against_it(sqlstate: str, about_content: bool) -> None:
    """A table that is missing in the middle of a migration says nothing about the notification that was to be stored."""
    assert is_about_content(errors.lookup(sqlstate)(SECRET)) is about_content


def test_what_the_driver_could_not_convert_is_about_content_and_a_lost_connection_is_not() -> None:
    assert is_about_content(psycopg.DataError("x"))
    assert not is_about_content(psycopg.OperationalError("x"))


def test_a_broken_connection_means_that_the_store_is_away() -> None:
    assert str(unavailable(psycopg.OperationalError("server closed the connection"))) == "the connection to Postgres broke"


def test_an_aborted_pipeline_is_the_fault_of_one_of_its_statements() -> None:
    assert unavailable(errors.PipelineAborted("pipeline aborted")) is None


def test_a_plan_that_a_migration_made_stale_is_worth_another_try(fresh_database: Callable[[], str]) -> None:
    url = fresh_database()
    with psycopg.connect(url, autocommit=True, prepare_threshold=0) as connection, psycopg.connect(url, autocommit=True) as other:
        other.execute("CREATE TABLE t (a int)")
        connection.execute("SELECT * FROM t")
        other.execute("ALTER TABLE t ADD b int")

        with pytest.raises(psycopg.Error) as caught:
            connection.execute("SELECT * FROM t")

    assert "table changed" in str(unavailable(caught.value))


def test_a_failed_connect_says_where_and_why_but_not_who() -> None:
    error = psycopg.OperationalError(
        'connection failed: connection to server at "192.0.2.1", port 5432 failed: FATAL:  password authentication failed for '
        'user "ada"\nconnection to server at "192.0.2.1", port 5432 failed: FATAL:  something else'
    )

    found = unreachable(error, "db.test, port 5432")

    assert str(found) == (
        "cannot connect to Postgres at db.test, port 5432: FATAL:  password authentication failed for this user"
    )


def test_a_failed_connect_without_words_still_says_something() -> None:
    assert str(unreachable(psycopg.OperationalError(""), "x")) == "cannot connect to Postgres at x: OperationalError"
