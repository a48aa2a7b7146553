"""Reading a Redis URL."""

from __future__ import annotations

import ssl

import pytest

from actors.io.redis_url import Endpoint, parse_endpoint
from dispatcher.errors import ConfigError
from house import Tls


@pytest.mark.parametrize(
    ("url", "address", "database", "username", "password"),
    [
        ("redis://cache", "cache:6379", 0, None, None),
        ("redis://cache:7000/5", "cache:7000", 5, None, None),
        ("redis://cache?db=5", "cache:6379", 5, None, None),
        ("redis://:se%2Fcret@cache", "cache:6379", 0, None, "se/cret"),
        ("redis://user:secret@cache", "cache:6379", 0, "user", "secret"),
        ("redis://[::1]:7000", "::1:7000", 0, None, None),
        ("redis://", "localhost:6379", 0, None, None),
        ("unix:///run/redis.sock", "/run/redis.sock", 0, None, None),
        ("unix://user:secret@/run/re%20dis.sock?db=3", "/run/re dis.sock", 3, "user", "secret"),
    ],
)
def test_a_url_names_server_database_and_user(
    url: str, address: str, database: int, username: str | None, password: str | None
) -> None:
    endpoint = parse_endpoint(url)

    assert endpoint.address == address
    assert (endpoint.database, endpoint.username, endpoint.password) == (database, username, password)
    assert endpoint.tls_context is None


@pytest.mark.parametrize(
    "url",
    [
        "http://cache",
        "redis://user:secret@cache:port",
        "redis://user:secret@cache/five",
        "redis://user:secret@cache/0?db=-1",
        "redis://user:secret@cache?db=five",
        "redis://user:secret@cache?protocol=3",
        "rediss://user:secret@cache?ssl_cert_reqs=none",
        "rediss://user:secret@cache?ssl_check_hostname=false",
        "rediss://user:secret@cache?ssl_ca_certs=/does/not/exist.pem",
        "unix://user:secret@",
        "redis://user:secret@cache?path=/run/redis.sock",
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_repeating_its_secrets(url: str) -> None:
    with pytest.raises(ConfigError, match="Redis URL") as refusal:
        parse_endpoint(url)

    assert "secret" not in str(refusal.value)
    assert refusal.value.__suppress_context__ or refusal.value.__cause__ is not None or refusal.value.__context__ is None


def test_the_repr_shows_no_credentials() -> None:
    shown = repr(parse_endpoint("redis://someone:secret@cache"))

    assert "cache" in shown
    assert "secret" not in shown
    assert "someone" not in shown


def test_tls_verifies_certificate_and_name() -> None:
    context = parse_endpoint("rediss://cache").tls_context

    assert context is not None
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname


def test_tls_trusts_the_authority_named_by_the_url(tls: Tls) -> None:
    endpoint = parse_endpoint(f"rediss://cache?ssl_ca_certs={tls.ca_file}")

    assert endpoint.tls_context is not None
    assert len(endpoint.tls_context.get_ca_certs()) == 1


def test_tls_presents_the_certificate_named_by_the_url(tls: Tls) -> None:
    parse_endpoint(f"rediss://cache?ssl_certfile={tls.certificate_file}&ssl_keyfile={tls.key_file}")

    with pytest.raises(ConfigError, match="certificate or key"):
        parse_endpoint(f"rediss://cache?ssl_certfile={tls.key_file}")


def test_a_context_that_does_not_verify_is_refused() -> None:
    context = ssl.create_default_context()
    context.check_hostname = False

    with pytest.raises(ConfigError, match="must verify"):
        parse_endpoint("rediss://cache", context)


def test_a_given_context_is_used_for_tls_only(tls: Tls) -> None:
    context = tls.client_context()

    def context_of(url: str) -> ssl.SSLContext | None:
        endpoint: Endpoint = parse_endpoint(url, context)
        return endpoint.tls_context

    assert context_of("rediss://cache") is context
    assert context_of("redis://cache") is None
