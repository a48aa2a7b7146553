"""Requests and responses are values, and show nothing of what they carry."""

from __future__ import annotations

import pytest

from dispatcher.http_message import HttpRequest, HttpResponse, Origin


@pytest.mark.parametrize(
    ("origin", "text"),
    [
        (Origin("https", "api.sendgrid.com", 443), "https://api.sendgrid.com:443"),
        (Origin("http", "::1", 8025), "http://[::1]:8025"),
    ],
)
def test_an_origin_is_written_as_a_url(origin: Origin, text: str) -> None:
    assert str(origin) == text


def test_neither_shows_headers_or_body() -> None:
    headers = ((b"authorization", b"Bearer canary"),)
    request = HttpRequest(Origin("https", "api.sendgrid.com", 443), b"POST", b"/v3/mail/send?canary", headers, b"canary")
    response = HttpResponse(202, headers, b"canary")

    assert repr(request) == "<POST request of 6 bytes to https://api.sendgrid.com:443>"
    assert repr(response) == "<response 202 of 6 bytes>"


def test_a_header_is_found_by_its_lower_case_name() -> None:
    response = HttpResponse(202, ((b"x-message-id", b"1"), (b"x-message-id", b"2")), b"")

    assert (response.header(b"x-message-id"), response.header(b"retry-after")) == (b"1", None)
