from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.io.http_terms import MaybeSent, NotSent
from actors.io.http_wire import ResponseReader, encode_request, host_of
from dispatcher.http_message import Headers, HttpRequest, HttpResponse, Origin

ORIGIN = Origin("http", "api.example.test", 80)
HEADER_BYTES_MAX = 4096
BODY_BYTES_MAX = 1000
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


def request(method: bytes = b"POST", target: bytes = b"/x", headers: Headers = (), body: bytes = b"") -> HttpRequest:
    return HttpRequest(ORIGIN, method, target, headers, body)


def reader(*, head_only: bool = False) -> ResponseReader:
    reader = ResponseReader(HEADER_BYTES_MAX, BODY_BYTES_MAX)
    reader.begin(head_only)
    return reader


def feed(reader: ResponseReader, wire: bytes) -> bool:
    """Feed no more at a time than the reader wants, as a connection does."""
    done = False
    while wire and not done:
        taken, wire = wire[: reader.appetite], wire[reader.appetite :]
        done = reader.feed(taken)
    return done


def read(wire: bytes, *, head_only: bool = False) -> HttpResponse:
    """The response of bytes that hold exactly one."""
    whole = reader(head_only=head_only)
    assert feed(whole, wire)
    assert whole.response is not None
    return whole.response


def failure(wire: bytes, *, ended: bool = False, clean: bool = True) -> MaybeSent:
    broken = reader()

    def take_in() -> None:
        assert not feed(broken, wire)
        if ended:
            broken.end(clean=clean)

    with pytest.raises(MaybeSent) as caught:
        take_in()
    return caught.value


class TestHost:
    @pytest.mark.parametrize(
        ("origin", "host"),
        [
            (Origin("http", "a.test", 80), b"a.test"),
            (Origin("https", "a.test", 443), b"a.test"),
            (Origin("http", "a.test", 443), b"a.test:443"),
            (Origin("https", "a.test", 8443), b"a.test:8443"),
            (Origin("http", "::1", 80), b"[::1]"),
            (Origin("https", "::1", 8443), b"[::1]:8443"),
        ],
    )
    def test_names_the_port_unless_it_is_the_schemes_own(self, origin: Origin, host: bytes) -> None:
        assert host_of(origin) == host


class TestEncodeRequest:
    def test_writes_head_and_body_in_one_piece(self) -> None:
        wire = encode_request(request(headers=((b"accept", b"*/*"), (b"x-a", b"1")), body=b"hello"), b"api.example.test")

        assert wire == (b"POST /x HTTP/1.1\r\nhost: api.example.test\r\naccept: */*\r\nx-a: 1\r\ncontent-length: 5\r\n\r\nhello")

    @pytest.mark.parametrize("method", [b"POST", b"PUT", b"PATCH"])
    def test_an_empty_body_is_announced_where_one_is_expected(self, method: bytes) -> None:
        assert b"\r\ncontent-length: 0\r\n" in encode_request(request(method), b"h")

    @pytest.mark.parametrize("method", [b"GET", b"HEAD", b"DELETE"])
    def test_an_empty_body_is_not_announced_elsewhere(self, method: bytes) -> None:
        assert encode_request(request(method), b"h") == method + b" /x HTTP/1.1\r\nhost: h\r\n\r\n"

    def test_a_body_may_hold_anything(self) -> None:
        assert encode_request(request(body=b"\r\n\0 \n"), b"h").endswith(b"content-length: 5\r\n\r\n\r\n\0 \n")

    @pytest.mark.parametrize("bad", [b"a\r\nx: y", b"a\nb", b"a\rb", b"a\0b"])
    def test_a_part_cannot_break_out_of_its_line(self, bad: bytes) -> None:
        for broken in (
            request(headers=((b"x-a", bad),)),
            request(headers=((bad, b"1"),)),
            request(target=bad),
            request(method=bad),
        ):
            with pytest.raises(NotSent) as caught:
                encode_request(broken, b"h")
            assert (caught.value.phase, caught.value.code) == ("protocol", "request_malformed")
            assert "x: y" not in str(caught.value)

    @pytest.mark.parametrize("target", [b"", b"/a b"])
    def test_a_target_is_one_word(self, target: bytes) -> None:
        with pytest.raises(NotSent):
            encode_request(request(target=target), b"h")

    @given(
        headers=st.lists(st.tuples(st.binary(max_size=8), st.binary(max_size=8)), max_size=4),
        target=st.binary(max_size=8),
    )
    def test_whatever_is_encoded_has_as_many_lines_as_it_was_given(
        self, headers: list[tuple[bytes, bytes]], target: bytes
    ) -> None:
        try:
            wire = encode_request(request(target=target, headers=headers), b"h")
        except NotSent:
            return
        head, _, body = wire.partition(b"\r\n\r\n")
        assert len(head.split(b"\r\n")) == len(headers) + 3
        assert b"\r" not in head.replace(b"\r\n", b"")
        assert b"\n" not in head.replace(b"\r\n", b"")
        assert body == b""


class TestFraming:
    def test_header_names_are_lower_case_and_values_as_sent(self) -> None:
        response = read(b"HTTP/1.1 202 Accepted\r\nX-Message-Id: AbC\r\nContent-Length: 0\r\n\r\n")

        assert response == (202, ((b"x-message-id", b"AbC"), (b"content-length", b"0")), b"")

    def test_repeated_headers_stay_apart_and_in_order(self) -> None:
        response = read(b"HTTP/1.1 200 OK\r\nSet-Cookie: a\r\nset-cookie: b\r\nContent-Length: 0\r\n\r\n")

        assert [value for name, value in response.headers if name == b"set-cookie"] == [b"a", b"b"]

    def test_content_length_ends_the_body(self) -> None:
        assert read(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello").body == b"hello"

    def test_chunks_are_joined_their_extensions_and_trailers_dropped(self) -> None:
        response = read(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n6\r\n world\r\n0\r\nX-Trailer: t\r\n\r\n"
        )

        assert response.body == b"hello world"
        assert response.header(b"x-trailer") is None

    @pytest.mark.parametrize("status", [204, 304])
    def test_a_status_without_body_needs_no_length(self, status: int) -> None:
        whole = reader()

        assert whole.feed(b"HTTP/1.1 %d x\r\n\r\n" % status)
        assert whole.keep_alive

    def test_a_304_may_announce_the_length_of_what_it_does_not_send(self) -> None:
        assert read(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n").body == b""

    def test_interim_responses_are_passed_over(self) -> None:
        response = read(
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
        )

        assert response == (200, ((b"content-length", b"2"),), b"ok")

    @pytest.mark.parametrize("framing", [b"content-length: 7", b"transfer-encoding: chunked", b"content-length: 0"])
    def test_the_answer_to_a_head_ends_with_its_head(self, framing: bytes) -> None:
        whole = reader(head_only=True)

        assert whole.feed(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n")
        assert whole.response is not None
        assert whole.response.body == b""
        assert whole.keep_alive

    def test_the_next_response_after_a_head_has_its_body(self) -> None:
        whole = reader(head_only=True)
        assert whole.feed(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n")

        whole.begin(head_only=False)

        assert whole.feed(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        assert whole.response is not None
        assert whole.response.body == b"ok"

    def test_a_close_ends_a_body_without_framing(self) -> None:
        whole = reader()

        assert not whole.feed(b"HTTP/1.1 200 OK\r\nx: y\r\n\r\nhel")
        assert not whole.feed(b"lo")
        assert whole.end(clean=True)
        assert whole.response == (200, ((b"x", b"y"),), b"hello")
        assert not whole.keep_alive

    def test_responses_follow_one_another_on_one_reader(self) -> None:
        whole = reader()
        for number in range(3):
            whole.begin(head_only=False)
            assert whole.feed(
                b"HTTP/1.1 200 OK\r\nx: %d\r\ntransfer-encoding: chunked\r\n\r\n1\r\n%d\r\n0\r\n\r\n" % (number, number)
            )
            assert whole.response is not None
            assert (whole.response.header(b"x"), whole.response.body) == (b"%d" % number, b"%d" % number)


class TestKeepAlive:
    @pytest.mark.parametrize(
        ("wire", "kept"),
        [
            (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", True),
            (b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n", False),
            (b"HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n", False),
            (b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 0\r\n\r\n", True),
        ],
    )
    def test_is_what_the_peer_says(self, wire: bytes, kept: bool) -> None:
        whole = reader()

        assert whole.feed(wire)
        assert whole.keep_alive is kept

    @pytest.mark.parametrize("leftover", [b"H", b"garbage", b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx"])
    @pytest.mark.parametrize("connection", [b"keep-alive", b"close"])
    def test_ends_with_anything_after_the_response(self, leftover: bytes, connection: bytes) -> None:
        whole = reader()

        assert whole.feed(b"HTTP/1.1 200 OK\r\nconnection: " + connection + b"\r\ncontent-length: 2\r\n\r\nok" + leftover)
        assert whole.response is not None
        assert whole.response.body == b"ok"
        assert not whole.keep_alive

    @pytest.mark.parametrize(
        "framing", [b"content-length: 2\r\n\r\nok", b"transfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"]
    )
    def test_ends_with_a_body_where_a_head_was_asked_for(self, framing: bytes) -> None:
        whole = reader(head_only=True)

        assert whole.feed(b"HTTP/1.1 200 OK\r\n" + framing)
        assert whole.response is not None
        assert whole.response.body == b""
        assert not whole.keep_alive

    def test_ends_with_a_close_right_after_the_response(self) -> None:
        whole = reader()
        assert whole.feed(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

        assert whole.end(clean=True)
        assert not whole.keep_alive


class TestLimits:
    def test_a_body_of_exactly_the_limit_passes(self) -> None:
        assert len(read(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n" + b"x" * 1000).body) == BODY_BYTES_MAX

    @pytest.mark.parametrize(
        "wire",
        [
            b"HTTP/1.1 200 OK\r\ncontent-length: 1001\r\n\r\n" + b"x" * 1001,
            CHUNKED + b"1f4\r\n" + b"x" * 500 + b"\r\n1f5\r\n" + b"x" * 501,
            b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1001,
        ],
        ids=["length", "chunked", "close"],
    )
    def test_a_body_beyond_the_limit_fails_and_the_status_is_kept(self, wire: bytes) -> None:
        problem = failure(wire)

        assert (problem.phase, problem.code, problem.status) == ("limit", "body_too_large", 200)

    def test_a_head_of_exactly_the_limit_passes(self) -> None:
        rest = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nx: \r\n\r\n"
        wire = rest.replace(b"x: ", b"x: " + b"y" * (HEADER_BYTES_MAX - len(rest)))

        assert len(wire) == HEADER_BYTES_MAX
        assert read(wire).status == 200

    @pytest.mark.parametrize(
        "wire",
        [
            b"HTTP/1.1 200 OK\r\nx: " + b"y" * HEADER_BYTES_MAX + b"\r\n\r\n",
            b"HTTP/1.1 200 " + b"O" * HEADER_BYTES_MAX,
            b"HTTP/1.1 103 Early Hints\r\nx: y\r\n\r\n" * 200,
            b"\r\n" * HEADER_BYTES_MAX,
        ],
        ids=["header", "reason", "interim", "blank"],
    )
    def test_a_head_beyond_the_limit_fails(self, wire: bytes) -> None:
        problem = failure(wire)

        assert (problem.phase, problem.code, problem.status) == ("limit", "headers_too_large", None)

    def test_a_head_in_pieces_cannot_end_beyond_the_limit_in_its_last_piece(self) -> None:
        slow = reader()
        slow.feed(b"HTTP/1.1 200 OK\r\nx: " + b"y" * 3000)

        assert slow.appetite == HEADER_BYTES_MAX - 3020

    @pytest.mark.parametrize(
        "endless",
        [b"0\r\n" + b"trailer: x\r\n", b"0\r\nt: ", b"1;extension="],
        ids=["trailers", "trailer", "extension"],
    )
    def test_framing_without_end_fails(self, endless: bytes) -> None:
        more = (b"y: z\r\n" if endless.endswith(b"\r\n") else b"yyyy") * HEADER_BYTES_MAX

        problem = failure(CHUNKED + endless + more)

        assert (problem.code, problem.status) == ("headers_too_large", 200)

    def test_small_chunks_are_not_mistaken_for_a_large_head(self) -> None:
        whole = reader()
        whole.feed(CHUNKED)

        for _ in range(BODY_BYTES_MAX):
            assert not whole.feed(b"1\r\nx\r\n")
        assert whole.feed(b"0\r\n\r\n")


class TestFaults:
    @pytest.mark.parametrize(
        "wire",
        [
            b"SSH-2.0-OpenSSH_9.6\r\n",
            b"HTTP/1.1 banana\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok",
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
            b"\x15\x03\x03\x00\x02\x02\x46",
        ],
    )
    def test_what_is_not_http_is_a_protocol_error(self, wire: bytes) -> None:
        problem = failure(wire)

        assert (problem.phase, problem.code) == ("protocol", "protocol_error")

    @pytest.mark.parametrize("headers", [b"", b"connection: upgrade\r\nupgrade: websocket\r\n"])
    def test_nobody_asked_for_another_protocol(self, headers: bytes) -> None:
        problem = failure(b"HTTP/1.1 101 Switching Protocols\r\n" + headers + b"\r\n")

        assert (problem.phase, problem.code, problem.status) == ("protocol", "upgrade_unasked", None)

    @pytest.mark.parametrize(
        ("wire", "ended"),
        [
            (b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", False),
            (b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nx", True),
        ],
    )
    def test_a_transfer_coding_besides_chunked_is_refused(self, wire: bytes, ended: bool) -> None:
        problem = failure(wire, ended=ended)

        assert (problem.phase, problem.code, problem.status) == ("protocol", "transfer_coding_unsupported", 200)

    def test_a_close_before_any_answer_is_told_apart_from_one_inside_it(self) -> None:
        nothing = failure(b"", ended=True)
        inside_head = failure(b"HTTP/1.1 200 OK\r\ncontent-le", ended=True)

        assert (nothing.phase, nothing.code, nothing.status) == ("read", "closed", None)
        assert (inside_head.phase, inside_head.code, inside_head.status) == ("read", "truncated", None)

    @pytest.mark.parametrize(
        "wire",
        [
            b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        ],
    )
    def test_a_close_inside_a_framed_body_is_a_truncation_and_the_status_is_kept(self, wire: bytes) -> None:
        problem = failure(wire, ended=True)

        assert (problem.phase, problem.code, problem.status) == ("read", "truncated", 200)

    def test_a_close_that_may_be_forged_ends_no_body(self) -> None:
        problem = failure(b"HTTP/1.1 200 OK\r\n\r\nok", ended=True, clean=False)

        assert (problem.phase, problem.code, problem.status) == ("read", "truncated", 200)

    def test_no_fault_shows_what_was_received(self) -> None:
        problem = failure(b"HTTP/1.1 200 OK\r\nx: secret\r\ntransfer-encoding: chunked\r\n\r\nsecret")

        assert "secret" not in f"{problem!r} {problem} {problem.__cause__!r}"


tokens = st.text(alphabet="abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=8).map(str.encode)
values = st.text(alphabet="abcXYZ019 ;=", max_size=12).map(lambda text: text.strip().encode())
bodies = st.binary(max_size=200)


@st.composite
def framed(draw: st.DrawFn) -> tuple[bytes, HttpResponse, bool]:
    """A response's bytes, the response, and whether the close ends it."""
    status = draw(st.sampled_from([200, 202, 404, 500, 599]))
    fixed = {b"content-length", b"transfer-encoding", b"connection", b"upgrade"}
    headers = [(name, value) for name, value in draw(st.lists(st.tuples(tokens, values), max_size=4)) if name not in fixed]
    body = draw(bodies)
    framing = draw(st.sampled_from(["length", "chunked", "close"]))
    wire = b"HTTP/1.1 100 Continue\r\n\r\n" * draw(st.integers(0, 2))
    tail = body
    if framing == "length":
        headers.append((b"content-length", b"%d" % len(body)))
    elif framing == "chunked":
        headers.append((b"transfer-encoding", b"chunked"))
        cuts = sorted(draw(st.lists(st.integers(0, len(body)), max_size=4)))
        pieces = [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces if piece)
        tail = chunks + b"0\r\n" + draw(st.sampled_from([b"", b"trailer: t\r\n"])) + b"\r\n"
    wire += b"HTTP/1.1 %d Reason\r\n" % status + b"".join(b"%b: %b\r\n" % header for header in headers) + b"\r\n" + tail
    return wire, HttpResponse(status, tuple(headers), body), framing == "close"


class TestChunking:
    @given(framed(), st.data())
    def test_how_the_bytes_are_cut_never_changes_the_response(
        self, case: tuple[bytes, HttpResponse, bool], data: st.DataObject
    ) -> None:
        wire, response, ends_by_close = case
        cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=12)))
        pieces = [wire[start:end] for start, end in zip([0, *cuts], [*cuts, len(wire)], strict=True)]
        whole = reader()

        done = [whole.feed(piece) for piece in pieces if piece]
        if ends_by_close:
            done.append(whole.end(clean=True))

        assert done == [False] * (len(done) - 1) + [True]
        assert whole.response == response
        assert whole.keep_alive is not ends_by_close

    @given(framed())
    def test_byte_by_byte_is_no_different(self, case: tuple[bytes, HttpResponse, bool]) -> None:
        wire, response, ends_by_close = case
        whole = reader()

        done = [whole.feed(wire[at : at + 1]) for at in range(len(wire))]

        assert any(done) is not ends_by_close
        assert whole.end(clean=True)
        assert whole.response == response

    @given(st.binary(max_size=300), st.integers(1, 50))
    def test_any_bytes_at_all_give_a_response_or_a_fault(self, wire: bytes, size: int) -> None:
        for prefix in (b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"):
            whole = reader()
            try:
                if prefix:
                    whole.feed(prefix)
                for at in range(0, len(wire), size):
                    if whole.feed(wire[at : at + size]):
                        break
                else:
                    whole.end(clean=True)
            except MaybeSent:
                continue
            assert whole.response is not None
