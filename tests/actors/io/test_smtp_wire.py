"""SMTP as bytes: replies read however they were cut, and commands that nothing breaks out of."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.io.http import NotSent
from actors.io.smtp_wire import (
    LINE_BYTES_MAX,
    REPLY_BYTES_MAX,
    Abilities,
    ReplyMalformed,
    ReplyReader,
    check_request,
    mail_command,
    read_abilities,
    stuffed,
)
from dispatcher.http_message import Origin
from dispatcher.smtp_message import SmtpReply, SmtpRequest

REQUEST = SmtpRequest(
    Origin("smtp", "mail.example.org", 587), None, "a@example.org", ("b@example.org",), b"Subject: x\r\n\r\nx\r\n"
)


def replies(*pieces: bytes) -> list[SmtpReply]:
    reader = ReplyReader()
    for piece in pieces:
        reader.feed(piece)
    found = []
    while (reply := reader.take()) is not None:
        found.append(reply)
    return found


@pytest.mark.parametrize(
    ("wire", "reply"),
    [
        (b"250 Ok\r\n", SmtpReply(250, None, b"Ok")),
        (b"250\r\n", SmtpReply(250)),
        (b"250 Ok\n", SmtpReply(250, None, b"Ok")),
        (b"550 5.1.1 nobody here\r\n", SmtpReply(550, (5, 1, 1), b"nobody here")),
        (b"550-5.1.1 nobody\r\n550 5.1.1 here\r\n", SmtpReply(550, (5, 1, 1), b"nobody\nhere")),
        (b"421 4.7.28 slower\r\n", SmtpReply(421, (4, 7, 28), b"slower")),
        (b"250 2.0.0\r\n", SmtpReply(250, (2, 0, 0), b"")),
        (b"250 2.0.0x\r\n", SmtpReply(250, None, b"2.0.0x")),
        (b"250 1.2.3 not a class\r\n", SmtpReply(250, None, b"1.2.3 not a class")),
        (b"250-one\r\n250-\r\n250 three\r\n", SmtpReply(250, None, b"one\n\nthree")),
    ],
)
def test_a_reply_is_read(wire: bytes, reply: SmtpReply) -> None:
    assert replies(wire) == [reply]


@pytest.mark.parametrize(
    "wire", [b"hello\r\n", b"25 Ok\r\n", b"150 Ok\r\n", b"2500 Ok\r\n", b"250-a\r\n251 b\r\n", b"\r\n", b"250:x\r\n"]
)
def test_what_is_no_reply_is_refused(wire: bytes) -> None:
    with pytest.raises(ReplyMalformed) as caught:
        replies(wire)

    assert caught.value.code == "protocol_error"


@pytest.mark.parametrize(
    "wire",
    [b"250 " + b"x" * LINE_BYTES_MAX, (b"250-" + b"x" * 1000 + b"\r\n") * (REPLY_BYTES_MAX // 1000 + 1), b"250 Ok\r\n" * 5000],
    ids=["line", "lines", "replies"],
)
def test_a_reply_without_end_is_refused(wire: bytes) -> None:
    with pytest.raises(ReplyMalformed) as caught:
        replies(wire)

    assert caught.value.code == "reply_too_large"


TEXT = st.binary(max_size=60).filter(lambda text: b"\n" not in text and not text.endswith(b"\r"))


@given(
    written=st.lists(st.tuples(st.integers(200, 599), st.lists(TEXT, min_size=1, max_size=4)), max_size=4),
    cuts=st.lists(st.integers(0, 1000)),
)
def test_how_the_bytes_were_cut_never_changes_the_replies(written: list[tuple[int, list[bytes]]], cuts: list[int]) -> None:
    lines = [
        b"%d%b%b\r\n" % (code, b" " if i == len(texts) - 1 else b"-", text)
        for code, texts in written
        for i, text in enumerate(texts)
    ]
    wire = b"".join(lines)
    at = sorted({0, len(wire), *(cut for cut in cuts if cut < len(wire))})

    whole = replies(wire)

    assert [reply.code for reply in whole] == [code for code, _ in written]
    assert replies(*(wire[a:b] for a, b in itertools.pairwise(at))) == whole


@given(st.lists(st.binary(max_size=40)))
def test_a_reader_fails_in_one_way_only(pieces: list[bytes]) -> None:
    try:
        replies(*pieces)
    except ReplyMalformed as error:
        assert error.code in ("protocol_error", "reply_too_large")  # noqa: PT017 — either may come, nothing else


def test_abilities_are_read_from_the_answer_to_ehlo() -> None:
    text = b"test\nPIPELINING\nsize 1000\nAUTH=LOGIN\nAuth PLAIN XOAUTH2\nSTARTTLS\n8BITMIME\nSMTPUTF8\nENHANCEDSTATUSCODES"

    able = read_abilities(SmtpReply(250, None, text))

    assert able == Abilities(True, True, True, True, True, 1000, frozenset({b"LOGIN", b"PLAIN", b"XOAUTH2"}))
    assert read_abilities(SmtpReply(250, None, b"PIPELINING")) == Abilities()  # the first line is its name
    assert read_abilities(SmtpReply(250, None, b"test\nSIZE 0")).size_max is None


@pytest.mark.parametrize(
    "request_",
    [
        REQUEST._replace(sender="a@example.org>\r\nRCPT TO:<c@example.org"),
        REQUEST._replace(recipients=("b@example.org> SIZE=1",)),
        REQUEST._replace(recipients=("b@example.org\r\nDATA",)),
        REQUEST._replace(recipients=("b@example.org\nDATA",)),
        REQUEST._replace(recipients=("b\x00@example.org",)),
        REQUEST._replace(recipients=("",)),
        REQUEST._replace(recipients=()),
        REQUEST._replace(recipients=("bü@example.org",)),  # without utf8
        REQUEST._replace(message=b"one\ntwo\r\n"),
        REQUEST._replace(message=b"one\rtwo\r\n"),
        REQUEST._replace(message=b"one\r\r\ntwo\r\n"),
        REQUEST._replace(message=b"one\n.\nMAIL FROM:<c@example.org>\r\n"),
        REQUEST._replace(message=b"one\0\r\n"),
    ],
)
def test_a_part_that_would_break_out_of_its_place_is_never_written(request_: SmtpRequest) -> None:
    with pytest.raises(NotSent) as caught:
        check_request(request_)

    assert (caught.value.phase, caught.value.code) == ("protocol", "request_malformed")


def test_a_good_request_passes() -> None:
    check_request(REQUEST)
    check_request(REQUEST._replace(sender=""))
    check_request(REQUEST._replace(message=None, recipients=()))
    check_request(REQUEST._replace(recipients=("bü@example.org",), utf8=True))


@pytest.mark.parametrize(
    ("message", "wire"),
    [
        (b"", b""),
        (b".\r\n", b"..\r\n"),
        (b".a\r\n..b\r\n\r\n.\r\n", b"..a\r\n...b\r\n\r\n..\r\n"),
        (b"no end", b"no end\r\n"),
        (b"a.b\r\n", b"a.b\r\n"),
    ],
)
def test_a_message_is_stuffed(message: bytes, wire: bytes) -> None:
    assert stuffed(message) == wire


@given(st.lists(st.text("ab.", max_size=5), max_size=6))
def test_no_line_of_a_stuffed_message_ends_it(lines: list[str]) -> None:
    message = "".join(f"{line}\r\n" for line in lines).encode()
    wire = stuffed(message).split(b"\r\n")

    assert b"." not in wire
    assert b"\r\n".join(line.removeprefix(b".") for line in wire) == message


def test_parameters_are_only_for_those_who_offer_them() -> None:
    able = Abilities(size=True, eight_bit=True, utf8=True)

    assert mail_command(REQUEST, Abilities()) == b"MAIL FROM:<a@example.org>\r\n"
    assert mail_command(REQUEST, able) == b"MAIL FROM:<a@example.org> SIZE=17\r\n"
    assert mail_command(REQUEST._replace(message="ü\r\n".encode(), utf8=True), able) == (
        b"MAIL FROM:<a@example.org> SIZE=4 BODY=8BITMIME SMTPUTF8\r\n"
    )
