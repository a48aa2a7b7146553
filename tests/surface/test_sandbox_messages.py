from __future__ import annotations

import pytest

from dispatcher_sandbox.messages import JSON, Answer, DateLine, Request, encode, gateway_page


def test_an_answer_is_framed_by_its_length() -> None:
    raw = encode(Answer(400, JSON, b"{}"), b"Date: x\r\n", keep_alive=True)

    assert raw == (
        b"HTTP/1.1 400 Bad Request\r\nServer: nginx\r\nDate: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: 2\r\nConnection: keep-alive\r\n\r\n{}"
    )


def test_the_answer_to_head_has_the_length_without_the_body() -> None:
    raw = encode(Answer(200, b"", b"body"), b"", keep_alive=False, head_only=True)

    assert raw.endswith(b"Content-Length: 4\r\nConnection: close\r\n\r\n")


@pytest.mark.parametrize("status", [200, 299, 418, 499, 599])
def test_every_status_can_be_sent(status: int) -> None:
    assert encode(Answer(status), b"", keep_alive=True).startswith(b"HTTP/1.1 %d " % status)


def test_the_front_server_answers_a_page_instead_of_json() -> None:
    page = gateway_page(413)

    assert page.status == 413
    assert b"text/html" in page.headers
    assert b"413 Payload Too Large" in page.body


def test_the_date_follows_the_clock_by_the_second() -> None:
    date = DateLine()

    assert date.at(0.0) == date.at(0.9) == b"Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
    assert date.at(1.0) == b"Date: Thu, 01 Jan 1970 00:00:01 GMT\r\n"


def test_a_request_shows_neither_credentials_nor_content() -> None:
    request = Request(b"POST", b"/v3/mail/send?to=a", {b"authorization": b"Bearer SG.secret"}, b"somebody@example.com")

    assert repr(request) == "<Request POST, 20 bytes>"
    assert request.path == b"/v3/mail/send"
