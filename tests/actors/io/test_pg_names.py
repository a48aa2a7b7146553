from __future__ import annotations

import socket
from typing import Any

import psycopg
import pytest
import trio
from psycopg.conninfo import conninfo_attempts

from actors.io.pg_names import with_addresses

BOOK = {"one.test": ["192.0.2.1"], "many.test": ["192.0.2.2", "2001:db8::2"]}


class Resolver(trio.abc.HostnameResolver):
    """A phone book, and who asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def getaddrinfo(self, host: Any, port: Any, family: int = 0, type: int = 0, proto: int = 0, flags: int = 0) -> Any:
        await trio.lowlevel.checkpoint()
        name = host.decode() if isinstance(host, bytes) else host
        self.asked.append(name)
        if name not in BOOK:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, type, proto, "", (address, int(port))) for address in BOOK[name]]

    async def getnameinfo(self, sockaddr: Any, flags: int) -> Any:
        raise NotImplementedError


@pytest.fixture
async def resolver(monkeypatch: pytest.MonkeyPatch) -> Resolver:
    for name in ("PGHOST", "PGHOSTADDR", "PGPORT"):
        monkeypatch.delenv(name, raising=False)
    resolver = Resolver()
    trio.socket.set_custom_hostname_resolver(resolver)
    return resolver


@pytest.mark.parametrize(
    "params",
    [
        {"host": "/run/postgres"},
        {"host": "192.0.2.9"},
        {"host": "2001:db8::9"},
        {"host": "one.test", "hostaddr": "192.0.2.9"},
        {"hostaddr": "192.0.2.9"},
        {"dbname": "x"},
    ],
)
async def test_what_is_no_name_is_not_looked_up(resolver: Resolver, params: dict[str, str]) -> None:
    await with_addresses(params)

    assert resolver.asked == []


async def test_a_name_stays_beside_each_of_its_addresses(resolver: Resolver) -> None:
    """The certificate is checked against the name."""
    assert await with_addresses({"host": "many.test", "port": "6000"}) == {
        "host": "many.test,many.test",
        "hostaddr": "192.0.2.2,2001:db8::2",
        "port": "6000,6000",
    }


async def test_hosts_of_every_kind_keep_their_order_and_their_ports(resolver: Resolver) -> None:
    found = await with_addresses({"host": "one.test,/run/postgres,192.0.2.9,many.test", "port": "1,2,3,4", "dbname": "x"})

    assert [(a.get("host"), a.get("hostaddr"), a["port"]) for a in conninfo_attempts(found)] == [
        ("one.test", "192.0.2.1", "1"),
        ("/run/postgres", "", "2"),
        ("192.0.2.9", "192.0.2.9", "3"),
        ("many.test", "192.0.2.2", "4"),
        ("many.test", "2001:db8::2", "4"),
    ]
    assert found["dbname"] == "x"


async def test_the_host_of_the_environment_is_looked_up_too(resolver: Resolver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGHOST", "one.test")

    assert await with_addresses({}) == {"host": "one.test", "hostaddr": "192.0.2.1", "port": "5432"}


async def test_a_name_without_an_address_is_left_out(resolver: Resolver) -> None:
    assert (await with_addresses({"host": "nobody.test,one.test"}))["host"] == "one.test"


async def test_only_names_without_an_address_are_an_error_that_says_which(resolver: Resolver) -> None:
    with pytest.raises(psycopg.OperationalError, match="'nobody.test' has no address: Name or service not known"):
        await with_addresses({"host": "nobody.test"})
