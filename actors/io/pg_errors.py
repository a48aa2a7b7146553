"""What Postgres errors may say, and which of them mean that the store is away.

Three questions, all answered by table. ``scrub`` cuts an error's text down to what cannot hold anybody's data: a server puts
values into DETAIL, CONTEXT and, for some classes, into the message itself. ``unavailable`` turns errors that say nothing about
the statement (the connection broke, the server is shutting down, is out of room, is a standby since a fail-over), or only about
its moment (a deadlock), into ``StoreUnavailable``. ``is_about_content`` tells what is left.

Invariant: the text of an error that went through here holds names of the schema and of conditions, never a value, a parameter
or a credential.
"""

from __future__ import annotations

import re

import psycopg
from psycopg import errors

from dispatcher.errors import StoreInDoubt, StoreUnavailable

_TELLING_CLASSES = frozenset(
    {"08", "0A", "21", "23", "24", "25", "26", "28", "2D", "34", "3B", "3D", "3F", "40", "42", "53", "54", "55", "57"}
)
"""Classes of SQLSTATE whose primary message is made of identifiers. The others (22: bad values, P0: RAISE in a function, XX)
quote what they met, so only the name of their condition is kept."""

_AWAY_CLASSES = {
    "08": "the connection to Postgres broke",
    "53": "Postgres is out of resources",
    "57": "Postgres ended the statement",
    "58": "Postgres met an error of its system",
}
_AWAY = {
    "25006": "Postgres is read-only here, so it is no longer the primary",
    "40001": "Postgres had this statement lose against another at the same time",
    "40003": "Postgres does not know whether the statement was completed",
    "40P01": "Postgres ended the statement to resolve a deadlock",
    "55006": "Postgres is using what the statement needs",
    "55P03": "Postgres could not get a lock in time",
    "25P03": "Postgres ended a transaction that was left idle",
    "25P04": "Postgres ended a transaction that took too long",
    "26000": "Postgres forgot a prepared statement",
    "53100": "Postgres has no disk space left",
    "53200": "Postgres is out of memory",
    "53300": "Postgres has no free connection slots",
    "57014": "Postgres canceled the statement",
    "57P01": "Postgres is shutting down, or an administrator ended the connection",
    "57P02": "Postgres ended the connection after a crash of another session",
    "57P03": "Postgres is starting up or shutting down",
    "57P05": "Postgres ended an idle connection",
}
_CONTENT_CLASSES = frozenset({"21", "22", "23", "44", "54", "P0", "XX"})
"""Classes that may be the fault of a single row: its values, a constraint, its size, a trigger of the operator's, a damaged page.
All others are true of the whole statement, whatever it holds: a right or a table that is missing after a fail-over or in the
middle of a migration, a transaction that can not go on."""
_BROKE = "the connection to Postgres broke"
_STALE_PLAN = "a table changed under a prepared statement"
_USER = re.compile(r'(user|role) "[^"]*"')


def scrub(error: psycopg.Error) -> None:
    """Rewrite the error's text in place. Its ``diag`` stays whole for code that needs, say, the constraint's name."""
    diag = error.diag
    if diag.sqlstate is None:
        # The driver's own words. Only conversions quote what they could not convert.
        if isinstance(error, psycopg.DataError):
            error.args = ("the driver could not convert a value",)
        return
    condition = type(error).__name__
    telling = diag.sqlstate[:2] in _TELLING_CLASSES
    words = diag.message_primary or condition if telling else f"{condition}: the message may quote data and is withheld"
    error.args = (f"{words} [SQLSTATE {diag.sqlstate}]",)


def unavailable(error: psycopg.Error) -> StoreUnavailable | None:
    """What to raise instead, from the error; None when the error is about the statement and not about the server."""
    sqlstate = error.sqlstate
    if sqlstate is None:
        # A pipeline is aborted by one of its statements, whose own error says why.
        broke = isinstance(error, psycopg.OperationalError) and not isinstance(error, errors.PipelineAborted)
        return StoreInDoubt(_BROKE) if broke else None
    if sqlstate == "0A000" and error.diag.source_function == "RevalidateCachedQuery":
        return StoreUnavailable(_STALE_PLAN)
    sentence = _AWAY.get(sqlstate) or _AWAY_CLASSES.get(sqlstate[:2])
    return None if sentence is None else StoreUnavailable(sentence)


def is_about_content(error: psycopg.Error) -> bool:
    """Whether another row might have passed. What the driver itself raised is, unless it speaks of the connection."""
    if error.sqlstate is None:
        return not isinstance(error, psycopg.OperationalError)
    return error.sqlstate[:2] in _CONTENT_CLASSES


def unreachable(error: psycopg.Error, place: str) -> StoreUnavailable:
    """Why no connection came about, in one line and without the user's name. (libpq never repeats a password.)"""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # libpq says "connection to server at ..., port ... failed: reason"; of several attempts the first line is the last one's.
    reason = lines[0].rpartition("failed: ")[2] if lines else type(error).__name__
    reason = _USER.sub(r"this \1", reason)
    return StoreUnavailable(f"cannot connect to Postgres at {place}: {reason}")
