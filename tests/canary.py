"""Personal data that can be recognised wherever it turns up, and a look at every place where it must not.

All of it carries one mark that occurs nowhere else, so the scan is a search for the mark, also as base64, hex or
percent-encoded text.
"""

from __future__ import annotations

import logging
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import httpx
import psycopg
import redis
from attrs import define, field

from dispatcher_http.logs import JsonFormatter, PlainFormatter
from running import Event

MARK = "zq7canary"
RECIPIENT = f"ada.{MARK}@example.org"
BOUNCING = f"bounce+{MARK}@sandbox.test"
VARIABLE = f"variable-{MARK}"
TEMPLATE_TEXT = f"template-{MARK}"
CONTENT = f"content-{MARK} <b>ü</b>"
USER = f"user-{MARK}"
IDEMPOTENCY_KEY = f"key-{MARK}"
CREDENTIAL = f"SG.{MARK}.{MARK}"
WRONG_API_KEY = f"ndk_{MARK}".ljust(47, "A")

ALLOWED_COLUMNS = {
    ("notifications", "recipient"),
    ("contacts", "recipient"),
    ("notifications", "payload"),
    ("notifications", "user_id"),
    ("notifications", "idempotency_key"),
    ("contacts", "recipient"),
    ("contacts", "note"),
    ("notification_templates", "subject"),
    ("notification_templates", "body_template"),
    ("notification_templates", "html_template"),
    ("notification_templates", "variables"),
    ("batch_answers", "idempotency_key"),
    ("users", "id"),
    ("contact_points", "user_id"),
    ("contact_points", "recipient"),
    ("contact_points", "app"),
    ("preferences", "user_id"),
    ("erasures", "user_id"),
    ("contacts", "recipient"),
}
"""Where the truth is kept. In every other column of every table it would be a leak."""


def spellings(secret: str) -> list[bytes]:
    """The ways in which a text may stand in some bytes, lower case."""
    plain = secret.encode()
    # Base64 of the middle, for each of the three places a text may begin at within a group of three bytes.
    inner = [b64encode(plain[start : start + (len(plain) - start) // 3 * 3]) for start in range(3)]
    return [form.lower() for form in (plain, plain.hex().encode(), quote(secret).encode(), *inner)]


@define
class Watch:
    """Everything that comes out of a dispatcher while it is watched. ``secrets`` are looked for besides the mark."""

    secrets: list[str] = field(factory=list)
    places: dict[str, list[bytes]] = field(factory=dict)

    def saw(self, place: str, data: bytes | str) -> None:
        """Note what came out somewhere."""
        self.places.setdefault(place, []).append(data.encode(errors="surrogateescape") if isinstance(data, str) else data)

    def answer(self, response: httpx.Response) -> httpx.Response:
        """Note an answer that may repeat nothing of what was sent."""
        headers = b"\n".join(name + b": " + value for name, value in response.headers.raw)
        self.saw("answers", headers + b"\n\n" + response.content)
        return response

    def events(self, heard: list[Event]) -> None:
        """Note what a listener heard."""
        self.saw("the stream", repr(heard))

    def postgres(self, url: str) -> None:
        """Note every column of every table that is not where the data belongs, and the texts of statements."""
        with psycopg.connect(url, autocommit=True) as connection:
            columns = connection.execute(
                "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'"
            ).fetchall()
            for table, column in columns:
                if (table, column) not in ALLOWED_COLUMNS:
                    query = psycopg.sql.SQL("SELECT DISTINCT {}::text FROM {}").format(
                        psycopg.sql.Identifier(column), psycopg.sql.Identifier(table)
                    )
                    values = connection.execute(query).fetchall()
                    self.saw(f"Postgres {table}.{column}", "\n".join(str(value) for (value,) in values))
            sealed = connection.execute("SELECT credentials FROM delivery_provider_configs").fetchall()
            self.saw("Postgres delivery_provider_configs.credentials", b"\n".join(bytes(value) for (value,) in sealed))
            activity = connection.execute("SELECT query FROM pg_stat_activity WHERE pid <> pg_backend_pid()").fetchall()
            self.saw("Postgres statements", "\n".join(str(text) for (text,) in activity))

    def redis(self, url: str) -> None:
        """Note every key and everything in it."""
        with redis.Redis.from_url(url) as client:
            for key in client.scan_iter():
                self.saw("Redis", key + b" " + repr(_content(client, key)).encode())

    def found(self) -> list[str]:
        """Where personal data was seen, each place once."""
        wanted = [form for secret in (MARK, *self.secrets) for form in spellings(secret)]
        return sorted(
            place for place, seen in self.places.items() if any(form in data.lower() for data in seen for form in wanted)
        )


def _content(client: redis.Redis, key: bytes) -> Any:
    readers: dict[bytes, Any] = {
        b"string": lambda: client.get(key),
        b"list": lambda: client.lrange(key, 0, -1),
        b"set": lambda: client.smembers(key),
        b"zset": lambda: client.zrange(key, 0, -1, withscores=True),
        b"hash": lambda: client.hgetall(key),
        b"stream": lambda: client.xrange(key),
        b"none": lambda: None,  # it expired meanwhile
    }
    kind: Any = client.type(key)
    return readers[kind]()


class _Lines(logging.Handler):
    """Both formats of every line, except for those of the test's own HTTP client."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self._watch = watch
        self._formatters = (PlainFormatter(), JsonFormatter())

    def emit(self, record: logging.LogRecord) -> None:
        if not record.name.startswith(("httpx", "httpcore")):
            for formatter in self._formatters:
                self._watch.saw("the log", formatter.format(record))


@contextmanager
def logged(watch: Watch) -> Iterator[None]:
    """Watch all loggers at their most talkative."""
    root, handler = logging.getLogger(), _Lines(watch)
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        yield
    finally:
        root.setLevel(level)
        root.removeHandler(handler)


@contextmanager
def monitored(watch: Watch, url: str) -> Iterator[None]:
    """Watch every command that Redis is given, by clients and by scripts, and every message it passes on."""
    with redis.Redis.from_url(url) as client, client.monitor() as monitor:

        def listen() -> None:
            for command in monitor.listen():
                watch.saw("Redis commands", repr(command))
                if "end of the watch" in command["command"]:
                    return

        thread = threading.Thread(target=listen)
        thread.start()
        try:
            yield
        finally:
            client.echo("end of the watch")
            thread.join(30)
