from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.http_message import Origin
from dispatcher.origins import BaseUrl, parse_base_url, parse_origin


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("https://api.example.org", BaseUrl(Origin("https", "api.example.org", 443), "")),
        ("http://api.example.org", BaseUrl(Origin("http", "api.example.org", 80), "")),
        ("HTTPS://API.Example.ORG:8443/", BaseUrl(Origin("https", "api.example.org", 8443), "")),
        ("http://127.0.0.1:8025/gateway/a%20b/", BaseUrl(Origin("http", "127.0.0.1", 8025), "/gateway/a%20b")),
        ("http://[::1]:8025", BaseUrl(Origin("http", "::1", 8025), "")),
        ("http://localhost", BaseUrl(Origin("http", "localhost", 80), "")),
    ],
)
def test_a_base_url_is_an_origin_and_a_path(url: str, base: BaseUrl) -> None:
    assert parse_base_url(url) == base


@pytest.mark.parametrize(
    "url",
    [
        "",
        "api.example.org",
        "//api.example.org",
        "ftp://api.example.org",
        "file:///etc/passwd",
        "https://",
        "https://user:pw@api.example.org",
        "https://user@api.example.org",
        "https://@api.example.org",
        "https://api.example.org?x=1",
        "https://api.example.org?",
        "https://api.example.org#x",
        "https://api.example.org:0",
        "https://api.example.org:65536",
        "https://api.example.org:http",
        "https://api.example.org/a b",
        "https://api.example.org/a\r\nhost: other",
        "https://api.example.org\t",
        "https://api.exämple.org",
        "https://api.example.org\\@evil.org",
        "https://[::1",
        "https://[v1.x]",
        "https://.example.org",
        'https://api.example.org/"',
        "https://api..example.org/<x>",
    ],
)
def test_anything_else_is_none(url: str) -> None:
    assert parse_base_url(url) is None


def test_paths_hang_below_the_base() -> None:
    base = parse_base_url("https://gateway.example.org/sendgrid/")

    assert base is not None
    assert base.target("/v3/mail/send") == b"/sendgrid/v3/mail/send"


def test_an_origin_has_no_path() -> None:
    assert parse_origin("http://127.0.0.1:8025") == Origin("http", "127.0.0.1", 8025)
    assert parse_origin("http://127.0.0.1:8025/") == Origin("http", "127.0.0.1", 8025)
    assert parse_origin("http://127.0.0.1:8025/path") is None
    assert parse_origin("nonsense") is None


@given(st.text(max_size=60) | st.text(max_size=40).map("https://host".__add__))
def test_no_text_breaks_it_and_none_breaks_out_of_a_request_line(text: str) -> None:
    base = parse_base_url(text)
    if base is not None:
        assert base.target("/x").isascii()
        assert not set(base.target("/x")) & set(b" \r\n\t")
        assert parse_base_url(f"{base.origin}{base.path}") == base
