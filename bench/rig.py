"""The rig: real servers in a scratch folder, contestants as processes of their own, and honest accounts of their CPU time.

Whatever is compared is compared in one run, in turns, on the same servers with the same rows, and judged by medians and ratios of
neighbouring turns: the machine's speed may drift, and both contestants drift with it.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import orjson
import psycopg
import redis
from attrs import define, field, frozen

import migrations
from actors.embedded.postgres import running_postgres
from actors.embedded.valkey import running_valkey
from actors.store.providers import sealing_context
from dispatcher.ids import RANDOM_BITS, uuid7
from dispatcher.keys import Keys, shard_of
from dispatcher.model import OrganizationId
from dispatcher.vault import parse_keys, seal_directly

ROOT = Path(__file__).parent.parent
SHARDS = 16
API_KEY = "SG." + "b" * 22 + "." + "b" * 43
KEYS_TEXT = "bench:" + b64encode(b"b" * 32).decode()
TEXT = "Thank you for your order. " * 23
_PAYLOAD = orjson.dumps({"subject": "Your tickets", "text": TEXT}).decode()
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@frozen
class Servers:
    """Where the shared servers are, and the processes to charge their CPU time to."""

    postgres_url: str
    redis_url: str
    sandbox_url: str
    folder: Path
    pids: Mapping[str, int] = field(repr=False)

    def environment(self) -> dict[str, str]:
        """What a contestant is started with."""
        return {
            **os.environ,
            "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "http"))),
            "DISPATCHER_POSTGRES_URL": self.postgres_url,
            "DISPATCHER_REDIS_URL": self.redis_url,
            "DISPATCHER_ENCRYPTION_KEYS": KEYS_TEXT,
            "DISPATCHER_PROVIDER_URLS_EXTRA": self.sandbox_url,
            "DISPATCHER_SWEEP_S": "3600",  # work starts when the rig says so, not when a sweep finds it
            "DISPATCHER_PORT": "0",
            "DISPATCHER_LOG_LEVEL": "error",
        }


@contextmanager
def servers() -> Iterator[Servers]:
    """Start Postgres, Valkey and the sandbox for the length of the block."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        folder.chmod(0o755)
        postgres_url = stack.enter_context(running_postgres(folder / "data"))
        redis_url = stack.enter_context(running_valkey(folder / "data"))
        migrations.up(postgres_url)
        sandbox = stack.enter_context(
            contestant(
                [sys.executable, "-m", "dispatcher_sandbox", "--port", "0"], {**os.environ, "PYTHONPATH": str(ROOT / "http")}
            )
        )
        sandbox_url = next(word for word in sandbox.first_line.split() if word.startswith("http://"))
        with psycopg.connect(postgres_url) as connection:
            (data,) = connection.execute("SHOW data_directory").fetchone() or ("",)
        postgres_pid = int((Path(data) / "postmaster.pid").read_text().split()[0])
        with redis.Redis.from_url(redis_url) as client:
            valkey_pid = int(client.info("server")["process_id"])
        yield Servers(
            postgres_url,
            redis_url,
            sandbox_url,
            folder,
            {"postgres": postgres_pid, "valkey": valkey_pid, "sandbox": sandbox.process.pid},
        )


@define
class Contestant:
    """A process under measurement. It prints one line when it is ready and ends on SIGTERM."""

    process: subprocess.Popen[bytes]
    first_line: str

    def say(self, line: str) -> None:
        """Write a line to its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()


@contextmanager
def contestant(command: Sequence[str], environment: Mapping[str, str]) -> Iterator[Contestant]:
    """Start a process, wait for its first line, end it when the block ends."""
    process = subprocess.Popen(command, env=dict(environment), stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)
    try:
        assert process.stdout is not None
        first_line = process.stdout.readline().decode()
        if not first_line:
            raise SystemExit(f"{' '.join(command)} ended with status {process.wait()} before it was ready")
        yield Contestant(process, first_line.strip())
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def cpu_s(pid: int) -> float:
    """CPU seconds of a process and of all its descendants, ended ones included."""
    total = 0.0
    children: dict[int, list[int]] = {}
    ticks: dict[int, int] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            stat = Path("/proc", entry, "stat").read_text()
        except OSError:
            continue
        fields = stat[stat.rindex(")") + 2 :].split()
        children.setdefault(int(fields[1]), []).append(int(entry))
        ticks[int(entry)] = sum(int(fields[i]) for i in (11, 12, 13, 14))
    waiting = [pid]
    while waiting:
        one = waiting.pop()
        total += ticks.get(one, 0) / TICKS_PER_S
        waiting.extend(children.get(one, ()))
    return total


@frozen
class Turn:
    """One contestant's turn: ``count`` notifications in ``seconds``; CPU microseconds per notification by process."""

    count: int
    seconds: float
    cpu_us: Mapping[str, float]

    @property
    def rate(self) -> float:
        """Notifications per second."""
        return self.count / self.seconds


def spread(values: Sequence[float], digits: int = 0) -> str:
    """``median [least - most]``."""
    return f"{median(values):,.{digits}f} [{min(values):,.{digits}f} - {max(values):,.{digits}f}]"


class Load:
    """Notifications to dispatch: organizations set up once, rows and ids anew for each turn.

    ``settings`` are further ones of their provider.
    """

    def __init__(self, servers: Servers, organizations: int, seed: int, prefix: str = "bench", **settings: Any) -> None:
        self.servers = servers
        self.names = [OrganizationId(f"{prefix}-{number:03d}") for number in range(organizations)]
        self._settings = settings
        self._random = random.Random(seed)
        self._keys = Keys()
        self._connection = psycopg.connect(servers.postgres_url, autocommit=True)
        self._redis = redis.Redis.from_url(servers.redis_url)
        self._http = httpx.Client(base_url=servers.sandbox_url)
        self._set_up()

    def _set_up(self) -> None:
        keys = parse_keys(KEYS_TEXT)
        settings = {"from_email": "shop@example.org", "base_url": self.servers.sandbox_url, **self._settings}
        with self._connection.cursor() as cursor:
            for name in self.names:
                id = self._id()
                # In the oldest form, so that any release can be measured.
                sealed = seal_directly(
                    keys, orjson.dumps({"api_key": API_KEY}), sealing_context(name, id), self._random.randbytes
                )
                cursor.execute("INSERT INTO organizations (id, name) VALUES (%s, %s)", (name, name))
                cursor.execute(
                    "INSERT INTO delivery_provider_configs (id, organization_id, provider, channel, credentials, settings) "
                    "VALUES (%s, %s, 'sendgrid', 'email', %s, %s::jsonb)",
                    (id, name, sealed, orjson.dumps(settings).decode()),
                )

    def _id(self) -> str:
        return uuid7(time.time_ns() // 1_000_000, self._random.getrandbits(RANDOM_BITS))

    def lay_out(self, count: int) -> dict[OrganizationId, list[str]]:
        """Empty what the last turn left and store ``count`` queued notifications, spread over all organizations."""
        self._redis.flushdb()
        self._http.delete("/_sandbox/ledger").raise_for_status()
        self._connection.execute("TRUNCATE notifications, attempts, dead_letters")
        laid: dict[OrganizationId, list[str]] = {name: [] for name in self.names}
        with (
            self._connection.cursor() as cursor,
            cursor.copy(
                "COPY notifications (id, organization_id, channel, attempts_max, created_at, updated_at, recipient, payload) "
                "FROM STDIN"
            ) as copy,
        ):
            for number in range(count):
                name = self.names[number % len(self.names)]
                id = self._id()
                now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
                copy.write_row((id, name, "email", 8, now, now, f"reader{number}@example.org", self.payload(number)))
                laid[name].append(id)
        self._connection.execute("VACUUM ANALYZE notifications")
        return laid

    def payload(self, number: int) -> str:
        """What one of them says."""
        return _PAYLOAD

    def queue(self, laid: Mapping[OrganizationId, Sequence[str]]) -> None:
        """Put the ids into Redis, without waking anybody."""
        pipeline = self._redis.pipeline(transaction=False)
        for name, ids in laid.items():
            pipeline.lpush(self._keys.queue(name), *ids)
        pipeline.execute()

    def wake(self) -> None:
        """Wake every organization."""
        pipeline = self._redis.pipeline(transaction=False)
        for name in self.names:
            pipeline.publish(self._keys.wake(shard_of(name, SHARDS)), name)
        pipeline.execute()

    def wait_done(self, count: int, deadline_s: float) -> None:
        """Wait until the sandbox has taken ``count`` and none of them is pending in Postgres any more."""
        give_up_at = time.monotonic() + deadline_s
        while self._taken() < count:
            if time.monotonic() > give_up_at:
                raise SystemExit(f"only {self._taken()} of {count} notifications arrived within {deadline_s:g} s")
            time.sleep(0.05)
        pending = "SELECT count(*) FROM notifications WHERE status IN ('queued', 'sending')"
        while (self._connection.execute(pending).fetchone() or (0,))[0]:
            if time.monotonic() > give_up_at:
                raise SystemExit("some outcomes were not recorded in time")
            time.sleep(0.01)

    def _taken(self) -> int:
        return int(self._http.get("/_sandbox/ledger/summary").json()["messages"])

    def requests(self) -> int:
        """How many requests the sandbox had in this turn."""
        return int(self._http.get("/_sandbox/ledger/summary").json()["requests"])

    def check(self, count: int) -> None:
        """Every notification exactly once at the provider, and delivered in Postgres: a fast wrong answer does not count."""
        summary: dict[str, Any] = self._http.get("/_sandbox/ledger/summary").json()
        delivered = (
            self._connection.execute("SELECT count(*) FROM notifications WHERE status = 'delivered'").fetchone() or (0,)
        )[0]
        if summary["messages"] != count or delivered != count:
            raise SystemExit(f"laid out {count}, accepted {summary['messages']}, recorded {delivered}: not a valid turn")

    def close(self) -> None:
        """Close the rig's own connections."""
        self._connection.close()
        self._redis.close()
        self._http.close()


@contextmanager
def accounts(pids: Mapping[str, int]) -> Iterator[dict[str, float]]:
    """CPU seconds that each of these processes, descendants included, spends during the block; filled when it ends."""
    before = {name: cpu_s(pid) for name, pid in pids.items()}
    spent: dict[str, float] = {}
    yield spent
    spent.update({name: cpu_s(pid) - before[name] for name, pid in pids.items()})
