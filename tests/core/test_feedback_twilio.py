"""Twilio's reports: its own SDK says which signature is right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlencode

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from twilio.request_validator import RequestValidator

from actors.feedback_ports import Report
from dispatcher.feedback.feedback import KEPT_FOR_EVER_UNIX_S, Feedback, FeedbackKind, WebhookRequest
from dispatcher.feedback.twilio import TWILIO_FEEDBACK, signature
from dispatcher.model import Channel, OrganizationId
from dispatcher.problems import Problem
from dispatcher.providers.registry import REGISTRY
from dispatcher.providers.twilio_errors import ERRORS
from twilio_world import ACCOUNT, CREDENTIALS, ID, NOW, NUMBER, SETTINGS, TOKEN

URL = f"https://dispatcher.example/hooks/7?organization_id=acme&notification_id={ID}"
SID = "SM" + "1f" * 16
MADE_UNIX_S = int(ID[:8] + ID[9:13], 16) / 1000
STATUS = {
    "AccountSid": ACCOUNT,
    "ApiVersion": "2010-04-01",
    "From": "+15005550006",
    "MessageSid": SID,
    "MessageStatus": "delivered",
    "SmsSid": SID,
    "SmsStatus": "delivered",
    "To": NUMBER,
}
INCOMING = {"AccountSid": ACCOUNT, "Body": "Stop", "From": NUMBER, "MessageSid": SID, "To": "+15005550006"}
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\ud800"), max_size=20)


def form(fields: Sequence[tuple[str, str]], url: str = URL, token: str = TOKEN, **headers: str) -> WebhookRequest:
    """A signed form."""
    signed = {
        "content-type": "application/x-www-form-urlencoded; charset=UTF-8",
        "x-twilio-signature": RequestValidator(token).compute_signature(url, dict(fields)),
    }
    return WebhookRequest("POST", url, {**signed, **headers}, urlencode(fields).encode())


def read(request: WebhookRequest, **credentials: str) -> Sequence[Feedback] | Problem:
    return TWILIO_FEEDBACK.read(request, SETTINGS, {**CREDENTIALS, **credentials}, NOW, {})


def told(**fields: str) -> Feedback | None:
    """What a status callback with these fields tells."""
    found = read(form(list({**STATUS, **fields}.items())))
    assert not isinstance(found, Problem)
    return found[0] if found else None


def came(**fields: str) -> Feedback | None:
    """What an incoming message with these fields tells."""
    found = read(form(list({**INCOMING, **fields}.items())))
    assert not isinstance(found, Problem)
    return found[0] if found else None


def said(kind: FeedbackKind, code: str) -> Feedback:
    """What somebody's word comes to."""
    return Feedback(f"{SID}:received", kind, code, NOW, recipient=NUMBER, key_unix_s=KEPT_FOR_EVER_UNIX_S)


def code(found: Sequence[Feedback] | Problem) -> str:
    assert isinstance(found, Problem)
    assert found.status in (401, 403)
    return found.code


# --- signatures ---------------------------------------------------------------------------------------------


def test_the_published_example_fits() -> None:
    number = "+14158675309"
    fields = {"CallSid": "CA1234567890ABCDE", "Caller": number, "Digits": "1234", "From": number, "To": "+18005551212"}
    url = "https://mycompany.com/myapp.php?foo=1&bar=2"

    assert signature("12345", url, list(fields.items())) == b"RSOYDt4T1cUTdK1PDd93/VVr8B8="


class Fields(dict[str, list[str]]):
    """Repeated fields, as the SDK wants them."""

    def getall(self, name: str) -> list[str]:
        return self[name]


@given(
    st.lists(st.tuples(TEXTS, TEXTS), max_size=8),
    st.sampled_from(["http", "https"]),
    st.sampled_from(["", ":443", ":80", ":8443"]),
    st.sampled_from(["", "?", "?a=%20b&c=d%2Fe", f"?notification_id={ID}"]),
    st.sampled_from(["HMAC_SHA1", "HMAC_SHA256"]),
    st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1),
)
def test_what_the_sdk_signs_is_taken(
    fields: list[tuple[str, str]], scheme: str, port: str, query: str, algorithm: str, token: str
) -> None:
    url = f"{scheme}://dispatcher.example{port}/hooks/7{query}"
    grouped = Fields()
    for name, value in fields:
        grouped.setdefault(name, []).append(value)
    signed = RequestValidator(token).compute_signature(url, grouped, algorithm)
    headers = {
        "content-type": "application/x-www-form-urlencoded",
        "x-twilio-signature": signed,
        "x-twilio-webhooks-signature-settings": f"algorithm={algorithm}",
    }
    request = WebhookRequest("POST", url, headers, urlencode(fields).encode())
    found = read(request, auth_token=token)

    assert RequestValidator(token).validate(url, grouped, signed, algorithm) or url.endswith("?")
    assert not isinstance(found, Problem) or found.code == "webhook_of_another_account"


@given(st.binary(max_size=200), st.sampled_from(["", ":443"]))
def test_another_body_is_signed_by_its_hash_in_the_url(body: bytes, port: str) -> None:
    validator = RequestValidator(TOKEN)
    text = body.decode("latin-1")
    url = f"https://dispatcher.example{port}/hooks/7?bodySHA256={validator.compute_hash(text)}"
    signed = validator.compute_signature(url, {})
    request = WebhookRequest("POST", url, {"content-type": "application/json", "x-twilio-signature": signed}, text.encode())

    assert validator.validate(url, text, signed)
    assert read(request) == ()


def test_a_json_body_tells_the_same_as_a_form() -> None:
    body = orjson.dumps(STATUS).decode()
    validator = RequestValidator(TOKEN)
    url = f"{URL}&bodySHA256={validator.compute_hash(body)}"
    headers = {"content-type": "application/json", "x-twilio-signature": validator.compute_signature(url, {})}
    request = WebhookRequest("POST", url, headers, body.encode())

    assert read(request) == read(form(list(STATUS.items())))
    assert code(read(WebhookRequest("POST", url, headers, body.encode() + b" "))) == "webhook_signature_wrong"
    bare = {**headers, "x-twilio-signature": validator.compute_signature(URL, {})}
    assert code(read(WebhookRequest("POST", URL, bare, body.encode()))) == "webhook_signature_wrong"


@pytest.mark.parametrize(
    "url",
    [URL, URL.replace("example", "example:443"), URL + "#rc=5&rp=5xx,ct,rt"],
    ids=["as given", "with its default port", "with a fragment"],
)
def test_ports_and_fragments_make_no_difference(url: str) -> None:
    signed = form(list(STATUS.items()))

    assert read(WebhookRequest("POST", url, signed.headers, signed.body)) == read(signed)


@pytest.mark.parametrize("change", ["url", "field", "value", "order of the body", "token", "method of signing"])
def test_a_signature_fits_nothing_else(change: str) -> None:
    fields = list(STATUS.items())
    signed = form(fields)
    request = {
        "url": WebhookRequest("POST", URL + "&x=1", signed.headers, signed.body),
        "field": WebhookRequest("POST", URL, signed.headers, signed.body + b"&x=1"),
        "value": WebhookRequest("POST", URL, signed.headers, signed.body.replace(b"delivered", b"undelivered")),
        "order of the body": WebhookRequest("POST", URL, signed.headers, urlencode(fields[::-1]).encode()),
        "token": form(fields, token="other"),
        "method of signing": form(fields, **{"x-twilio-webhooks-signature-settings": "algorithm=HMAC_SHA256"}),
    }[change]
    found = read(request)

    if change == "order of the body":
        assert not isinstance(found, Problem)
    else:
        assert code(found) == "webhook_signature_wrong"


def test_a_report_without_a_signature_or_of_an_unknown_kind_is_refused() -> None:
    signed = form(list(STATUS.items()))
    bare = {name: value for name, value in signed.headers.items() if name != "x-twilio-signature"}
    odd = {**signed.headers, "x-twilio-webhooks-signature-settings": "algorithm=NONE"}

    assert code(read(WebhookRequest("POST", URL, bare, signed.body))) == "webhook_signature_missing"
    assert code(read(WebhookRequest("POST", URL, odd, signed.body))) == "webhook_signature_unknown"


def test_a_key_of_the_accounts_own_signs_instead_of_its_token() -> None:
    settings = {"x-twilio-webhooks-signature-settings": "key=webhooks_sharedkey_1,algorithm=HMAC_SHA256"}
    fields = list(STATUS.items())
    signed = RequestValidator("own-key").compute_signature(URL, dict(fields), "HMAC_SHA256")
    request = form(fields, **settings, **{"x-twilio-signature": signed})

    assert not isinstance(read(request, webhook_key="own-key"), Problem)
    assert code(read(request)) == "webhook_secret_missing"
    assert code(read(request, webhook_key="other")) == "webhook_signature_wrong"


def test_without_a_token_nothing_can_be_checked() -> None:
    request = form(list(STATUS.items()))
    found = TWILIO_FEEDBACK.read(request, SETTINGS, {"account_sid": ACCOUNT}, NOW, {})

    assert code(found) == "webhook_secret_missing"


def test_another_account_is_refused() -> None:
    """A token may be good for several accounts of one owner."""
    assert code(read(form(list({**STATUS, "AccountSid": "AC" + "0" * 32}.items())))) == "webhook_of_another_account"


# --- statuses -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "kind"),
    [("sent", FeedbackKind.SENT), ("delivered", FeedbackKind.DELIVERED), ("read", FeedbackKind.READ)],
)
def test_a_status_tells_of_its_message(state: str, kind: FeedbackKind) -> None:
    found = told(MessageStatus=state)

    assert found == Feedback(f"{SID}:{state}", kind, state, NOW, ID, SID, NUMBER, key_unix_s=MADE_UNIX_S)


@pytest.mark.parametrize("state", ["queued", "accepted", "scheduled", "sending", "receiving", "partially_delivered", "other"])
def test_states_on_the_way_tell_nothing(state: str) -> None:
    assert told(MessageStatus=state) is None


def test_a_whatsapp_number_is_a_number() -> None:
    found = told(To=f"whatsapp:{NUMBER}")

    assert found is not None
    assert found.recipient == NUMBER


KINDS: dict[FeedbackKind, str] = {
    FeedbackKind.UNSUBSCRIBED: "21610 63014 63033",
    FeedbackKind.INVALID: "21211 21217 21268 21614 21635 30005 30006 63003 63024",
    FeedbackKind.SOFT_BOUNCED: "30003 30004 30008 30450",
}


@pytest.mark.parametrize("number", sorted(ERRORS.rows))
@pytest.mark.parametrize("state", ["failed", "undelivered"])
def test_every_code_of_the_table_tells_something(number: int, state: str) -> None:
    kind = next((kind for kind, numbers in KINDS.items() if str(number) in numbers.split()), FeedbackKind.REFUSED)
    found = told(MessageStatus=state, ErrorCode=str(number), ErrorMessage=f"to {NUMBER}")

    assert found is not None
    assert (found.kind, found.code) == (kind, ERRORS.rows[number].code)


@pytest.mark.parametrize(
    ("number", "name"),
    [("30999", "delivery_30999"), ("", "failed"), ("99999", "failed"), ("x", "failed"), ("3" * 5000, "failed"), ("²", "failed")],
)
def test_a_code_nobody_knows_is_never_held_against_the_recipient(number: str, name: str) -> None:
    found = told(MessageStatus="failed", ErrorCode=number)

    assert found is not None
    assert (found.kind, found.code) == (FeedbackKind.REFUSED, name)


def test_a_repetition_has_the_same_id_and_another_status_has_not() -> None:
    first, again, other = told(), told(RawDlrDoneDate="2311142213"), told(MessageStatus="read")

    assert first is not None
    assert again is not None
    assert other is not None
    assert first.event_id == again.event_id != other.event_id


@pytest.mark.parametrize("url", [URL, "https://dispatcher.example/hooks/7"])
@pytest.mark.parametrize("fields", [STATUS, INCOMING])
def test_a_repetition_is_known_by_its_key_although_it_comes_later(url: str, fields: dict[str, str]) -> None:
    """Twilio signs no time, so that what it has signed once is good for ever."""
    request = form(list(fields.items()), url)
    reports = []
    for later_s in (0.0, 3.0, 3600.0):
        found = TWILIO_FEEDBACK.read(request, SETTINGS, CREDENTIALS, NOW + later_s, {})
        assert not isinstance(found, Problem)
        reports += [Report(OrganizationId("acme"), "config", "twilio_sms", Channel.SMS, one) for one in found]

    assert len(reports) == 3
    assert len({report.key for report in reports}) == 1


@pytest.mark.parametrize("number", [21610, 63014, 63033])
def test_a_message_to_who_has_opted_out_has_not_arrived(number: int) -> None:
    found = read(form(list({**STATUS, "MessageStatus": "failed", "ErrorCode": str(number)}.items())))

    assert not isinstance(found, Problem)
    assert [one.kind for one in found] == [FeedbackKind.UNSUBSCRIBED, FeedbackKind.REFUSED]
    assert len({one.event_id for one in found}) == 2


def test_behind_a_proxy_the_address_that_was_given_counts() -> None:
    signed = form(list(STATUS.items()))
    seen = f"http://10.0.0.7:8080/hooks/7?organization_id=acme&notification_id={ID}"
    request = WebhookRequest("POST", seen, signed.headers, signed.body)
    settings = {**SETTINGS, "status_callback_url": "https://dispatcher.example/hooks/7"}

    assert code(read(request)) == "webhook_signature_wrong"
    assert TWILIO_FEEDBACK.read(request, settings, CREDENTIALS, NOW, {}) == read(signed)


def test_a_message_of_somebody_elses_is_told_by_its_id_alone() -> None:
    found = read(form(list(STATUS.items()), url="https://dispatcher.example/hooks/7?notification_id=x"))

    assert not isinstance(found, Problem)
    assert (found[0].notification_id, found[0].provider_message_id) == (None, SID)


@pytest.mark.parametrize("sid", ["", "SM1", "x" * 500])
def test_a_status_of_no_message_tells_nothing(sid: str) -> None:
    assert told(MessageSid=sid) is None


# --- incoming messages --------------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["STOP", "stop", " Stop. ", "stopall", "unsubscribe", "Cancel", "END", "quit", "opt out"])
def test_a_word_opts_out(word: str) -> None:
    assert came(Body=word) == said(FeedbackKind.UNSUBSCRIBED, "stop_received")


@pytest.mark.parametrize("word", ["START", "unstop", "Yes"])
def test_a_word_opts_in_again(word: str) -> None:
    assert came(Body=word, From=f"whatsapp:{NUMBER}") == said(FeedbackKind.RESUBSCRIBED, "start_received")


@pytest.mark.parametrize("body", ["please stop", "STOP it now", "", "help", "yes please", "stop" * 1000])
def test_other_words_mean_nothing(body: str) -> None:
    assert came(Body=body) is None


def test_twilios_own_view_of_the_words_counts_more() -> None:
    found = came(Body="arrêt", OptOutType="STOP")

    assert found is not None
    assert found.kind is FeedbackKind.UNSUBSCRIBED


@pytest.mark.parametrize("sender", ["", "12345", "rcs:agent", "Acme"])
def test_who_has_no_number_opts_nobody_out(sender: str) -> None:
    assert came(From=sender) is None


# --- anything else ------------------------------------------------------------------------------------------


@given(
    st.sampled_from(["POST", "GET", ""]),
    st.text() | st.just(URL),
    st.dictionaries(
        st.sampled_from(["content-type", "x-twilio-signature", "x-twilio-webhooks-signature-settings"]),
        st.text() | st.sampled_from(["application/x-www-form-urlencoded", "key=a,algorithm=HMAC_SHA256"]),
    ),
    st.binary(),
)
def test_whatever_comes_is_refused_without_a_word_too_much(method: str, url: str, headers: dict[str, str], body: bytes) -> None:
    found = TWILIO_FEEDBACK.read(WebhookRequest(method, url, headers, body), SETTINGS, CREDENTIALS, NOW, {})

    assert isinstance(found, Problem)


@given(st.dictionaries(st.sampled_from([*STATUS, *INCOMING, "ErrorCode", "OptOutType"]), TEXTS))
def test_whatever_is_signed_is_read(fields: dict[str, str]) -> None:
    found = read(form(list(fields.items())))

    assert isinstance(found, Problem) or all(len(one.event_id) <= 200 for one in found)


def test_both_providers_read_reports() -> None:
    assert {REGISTRY[name].feedback for name in ("twilio_sms", "twilio_whatsapp")} == {TWILIO_FEEDBACK}


def test_nothing_shows_who_it_is_about() -> None:
    shown: Any = [told(), came(), form(list(STATUS.items()))]

    assert NUMBER not in repr(shown)
