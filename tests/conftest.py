"""House-wide fixtures: one private Postgres and one private Valkey for the whole run, and an empty database for every test.

Both servers are the ones the dispatcher itself embeds. They die with the test process, however it ends. All fixtures here are
synchronous, so tests of both kinds can use them.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from hypothesis import settings

import migrations
from actors.embedded.folder import in_use
from actors.embedded.postgres import running_postgres
from actors.embedded.valkey import running_valkey
from house import Databases, Tls

ROOT = Path(__file__).parent.parent
FOLDER_PREFIX = "dispatcher-tests-"

# No deadline: the machine may be busy. A failure prints what reproduces it.
settings.register_profile("house", deadline=None, print_blob=True)
settings.load_profile("house")


def pytest_configure() -> None:
    if (ROOT / "http" / "__init__.py").exists():
        raise pytest.UsageError(
            "http/__init__.py exists: a package named http hides the standard library's, so http/ is a folder only"
        )


@pytest.fixture(scope="session")
def servers_folder() -> Iterator[Path]:
    """Where the servers of this run keep their files: in memory if there is room, because copying a database's 300 files to a
    disk takes 300 ms, and to memory 10 ms."""
    memory = Path("/dev/shm")
    roomy = os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 2 << 30
    base = memory if roomy else Path(tempfile.gettempdir())
    for left in base.glob(FOLDER_PREFIX + "*"):  # of runs that were killed
        if time.time() - left.stat().st_mtime > 3600 and not in_use(left / "postgres"):
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=FOLDER_PREFIX, dir=base, ignore_cleanup_errors=True) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def postgres_url(servers_folder: Path) -> Iterator[str]:
    """The URL of this run's Postgres. Tests that write want ``database_url`` or ``fresh_database``."""
    settings = {"max_connections": "200", "max_wal_size": "128MB", "min_wal_size": "32MB"}
    with running_postgres(servers_folder, durable=False, settings=settings) as url:
        yield url


@pytest.fixture(scope="session")
def databases(postgres_url: str) -> Iterator[Databases]:
    """Makes and drops databases."""
    databases = Databases(postgres_url)
    yield databases
    databases.close()


@pytest.fixture(scope="session")
def migrated_template(databases: Databases) -> str:
    """The name of a migrated database that nobody connects to, to be copied."""
    url = databases.create()
    migrations.up(url)
    return databases.name(url)


@pytest.fixture
def fresh_database(databases: Databases) -> Iterator[Callable[[], str]]:
    """``fresh_database()`` makes an empty database without a schema and returns its URL. All are dropped after the test."""
    made: list[str] = []

    def create() -> str:
        made.append(databases.create())
        return made[-1]

    yield create
    for url in made:
        databases.drop(url)


@pytest.fixture
def database_url(databases: Databases, migrated_template: str) -> Iterator[str]:
    """The URL of a migrated, empty database of this test's own."""
    url = databases.create(migrated_template)
    yield url
    databases.drop(url)


@pytest.fixture(scope="session")
def valkey_url(servers_folder: Path) -> Iterator[str]:
    """The URL of this run's Valkey. Tests want ``redis_url``."""
    with running_valkey(servers_folder) as url:
        yield url


@pytest.fixture
def redis_url(valkey_url: str) -> str:
    """The URL of an emptied Valkey: no keys, no scripts."""
    with redis.Redis.from_url(valkey_url) as client:
        client.flushall()
        client.script_flush()
    return valkey_url


@pytest.fixture(scope="session")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    """A certificate authority for servers on loopback, and the contexts of both ends."""
    return Tls(tmp_path_factory.mktemp("tls"))
