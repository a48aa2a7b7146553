"""SMTP transactions are values, and show nothing of what they carry."""

from __future__ import annotations

from dispatcher.http_message import Origin
from dispatcher.smtp_message import Fault, Login, SmtpReply, SmtpRequest, SmtpResponse, Stage

ORIGIN = Origin("smtp", "mail.example.org", 587)


def test_a_request_shows_no_login_no_address_and_no_message() -> None:
    request = SmtpRequest(ORIGIN, Login("canary", "canary"), "canary@example.org", ("canary@example.net",), b"canary")

    assert repr(request) == "<mail of 6 bytes for 1 recipients through smtp://mail.example.org:587>"
    assert repr(request._replace(message=None)) == "<mail of no message for 1 recipients through smtp://mail.example.org:587>"
    assert repr(request.login) == "<login>"
    assert "canary" not in f"{request.login} {request} {[request]}"


def test_an_answer_shows_codes_and_never_a_servers_words() -> None:
    refusal = SmtpReply(550, (5, 1, 1), b"no such user canary")
    response = SmtpResponse(Stage.MESSAGE, SmtpReply(250, None, b"queued as canary"), (refusal,))

    assert repr(refusal) == "<reply 550 5.1.1>"
    assert repr(response) == "<answer at message: <reply 250>, 1 recipients>"
    assert repr(SmtpResponse(Stage.TLS, None, fault=Fault.CERTIFICATE)) == "<answer at tls: certificate_invalid, 0 recipients>"
