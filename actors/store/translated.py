"""What the stores in Postgres let out in place of the driver's own exceptions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from actors.io.postgres import is_about_content
from dispatcher.errors import StoreRefused, StoreUnavailable


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Lets nothing of the driver out: only what may be the fault of a row refuses rows, everything else may be tried again."""
    try:
        yield
    except psycopg.Error as error:
        if not is_about_content(error):
            raise StoreUnavailable(f"Postgres could not take {what} at this moment: {type(error).__name__}") from error
        raise StoreRefused(f"Postgres refused {what}: {type(error).__name__}") from None
