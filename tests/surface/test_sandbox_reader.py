from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher_sandbox.messages import Request
from dispatcher_sandbox.reader import Limits, RequestReader

POST = b"POST /a?b=c HTTP/1.1\r\nHost: x\r\nX-Thing: 1\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2;x=y\r\nlo\r\n0\r\n\r\n"
GET = b"GET /g HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def content(request: Request) -> tuple[bytes, bytes, bytes, bool]:
    return request.method, request.target, request.body, request.keep_alive


def in_pieces(raw: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted({cut % (len(raw) + 1) for cut in cuts}), len(raw)]
    return [raw[low:high] for low, high in pairwise(edges) if low < high]


@given(st.lists(st.integers(0, 10_000), max_size=12))
def test_however_the_bytes_are_cut_the_same_requests_come_out_in_order(cuts: list[int]) -> None:
    reader = RequestReader(Limits())
    requests = [request for piece in in_pieces(POST + CHUNKED + GET, cuts) for request in reader.feed(piece)]

    assert [content(request) for request in requests] == [
        (b"POST", b"/a?b=c", b"hello", True),
        (b"POST", b"/a", b"hello", True),
        (b"GET", b"/g", b"", False),
    ]
    assert requests[0].headers == {b"host": b"x", b"x-thing": b"1", b"content-length": b"5"}
    assert reader.refusal is None


@pytest.mark.parametrize(
    "raw",
    [b"hello\r\n\r\n", b"POST / HTTP/1.1\r\nContent-Length: many\r\n\r\n", b"GET / HTTP/1.1\r\n: x\r\n\r\n", b"\x16\x03\x01\x02",
     b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nxx"],
)  # fmt: skip
def test_what_is_not_a_request_is_refused(raw: bytes) -> None:
    reader = RequestReader(Limits())
    reader.feed(raw)

    assert reader.refusal is not None
    assert reader.refusal.status == 400


def test_requests_before_the_broken_one_still_come_out() -> None:
    reader = RequestReader(Limits())
    requests = reader.feed(POST + b"nonsense\r\n\r\n")

    assert [request.body for request in requests] == [b"hello"]
    assert reader.refusal is not None


def test_after_a_refusal_nothing_more_is_read() -> None:
    reader = RequestReader(Limits())
    reader.feed(b"nonsense\r\n\r\n")

    assert reader.feed(POST) == []


def test_a_body_that_announces_too_much_is_refused_before_it_arrives() -> None:
    reader = RequestReader(Limits(body_bytes_max=4))

    assert reader.feed(POST[:-5]) == []
    assert reader.refusal is not None
    assert reader.refusal.status == 413


def test_a_chunked_body_is_refused_when_it_passes_the_limit() -> None:
    reader = RequestReader(Limits(body_bytes_max=4))

    assert reader.feed(CHUNKED) == []
    assert reader.refusal is not None
    assert reader.refusal.status == 413


@pytest.mark.parametrize("raw", [POST, CHUNKED])
def test_a_body_of_exactly_the_limit_is_read(raw: bytes) -> None:
    reader = RequestReader(Limits(body_bytes_max=5))

    assert [request.body for request in reader.feed(raw)] == [b"hello"]


def test_a_head_without_end_is_refused() -> None:
    reader = RequestReader(Limits(header_bytes_max=100))
    reader.feed(b"GET / HTTP/1.1\r\n")
    for _ in range(10):
        reader.feed(b"X-Again: 0123456789\r\n")

    assert reader.refusal is not None
    assert reader.refusal.status == 431


def test_the_head_limit_counts_each_request_by_itself() -> None:
    reader = RequestReader(Limits(header_bytes_max=100))
    for _ in range(50):
        for piece in (POST[:20], POST[20:]):
            reader.feed(piece)

    assert reader.refusal is None


def test_a_client_that_waits_for_permission_is_noticed_until_its_body_is_there() -> None:
    reader = RequestReader(Limits())
    reader.feed(POST.replace(b"X-Thing: 1", b"Expect: 100-Continue")[:-5])

    assert reader.wants_continue
    assert [request.body for request in reader.feed(b"hello")] == [b"hello"]
    assert not reader.wants_continue


def test_a_body_that_follows_at_once_needs_no_permission() -> None:
    reader = RequestReader(Limits())
    reader.feed(POST.replace(b"X-Thing: 1", b"Expect: 100-continue"))

    assert not reader.wants_continue
