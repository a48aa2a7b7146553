"""The private Valkey: it starts, it stops with its owner, it never evicts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from actors.embedded.folder import in_use
from actors.embedded.valkey import embedded_valkey, running_valkey
from dispatcher.errors import ConfigError

OWNER = """if True:
    import sys
    from pathlib import Path
    from actors.embedded.valkey import running_valkey
    with running_valkey(Path(sys.argv[1])) as url:
        print(url, flush=True)
        sys.stdin.read()
"""


async def test_it_answers_speaks_redis_and_is_gone_afterwards(tmp_path: Path) -> None:
    async with embedded_valkey(tmp_path) as url:
        with redis.Redis.from_url(url) as client:
            client.set("key", "value")
            assert client.get("key") == b"value"
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
            assert client.config_get("appendonly") == {"appendonly": "no"}
            assert client.config_get("port") == {"port": "0"}

    with pytest.raises(redis.ConnectionError), redis.Redis.from_url(url) as client:
        client.ping()
    assert not in_use(tmp_path / "valkey")


def test_it_keeps_nothing(tmp_path: Path) -> None:
    for _ in range(2):
        with running_valkey(tmp_path) as url, redis.Redis.from_url(url) as client:
            assert client.dbsize() == 0
            client.set("key", "value")


def test_a_second_start_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    with running_valkey(tmp_path), pytest.raises(ConfigError, match=f"is in use by process {os.getpid()}"):
        with running_valkey(tmp_path):
            pass


def test_the_server_of_a_killed_owner_stops_and_the_next_one_starts(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OWNER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        url = owner.stdout.readline().strip()
        with redis.Redis.from_url(url) as client:
            client.set("key", "of the first")
        owner.kill()

    with running_valkey(tmp_path) as url, redis.Redis.from_url(url) as client:
        assert client.get("key") is None


def test_a_data_folder_whose_path_is_long_or_odd_works(tmp_path: Path) -> None:
    for name in ("long" * 40, "with space & 'quotes' %41 ü"):
        with running_valkey(tmp_path / name) as url, redis.Redis.from_url(url) as client:
            assert client.ping()
