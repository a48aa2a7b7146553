"""The published rules of mail/send, one case each."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher_sandbox.sendgrid.faults import HELP, Unreadable
from dispatcher_sandbox.sendgrid.fields import RESERVED_HEADERS
from dispatcher_sandbox.sendgrid.mail import faults_of
from dispatcher_sandbox.sendgrid.people import is_address
from sandbox_mails import mail

NOW_S = 1_800_000_000.0
TEMPLATE = "d-" + "0a" * 16
LEGACY_TEMPLATE = "13b8f94f-bcae-4ec6-b752-70d6cb59f932"


def block(**fields: Any) -> dict[str, Any]:
    """A mail whose only personalization has these fields."""
    return mail(personalizations=[{"to": [{"email": "a@example.com"}], **fields}])


def sent_by(sender: Any) -> dict[str, Any]:
    """A mail with this ``from``; ``...`` leaves it out."""
    return {name: value for name, value in (mail() | {"from": sender}).items() if value is not ...}


def people(count: int, start: int = 0) -> list[dict[str, str]]:
    return [{"email": f"p{number}@example.com"} for number in range(start, start + count)]


def attachment(**fields: Any) -> dict[str, Any]:
    whole = {"content": base64.b64encode(b"ticket").decode(), "filename": "ticket.pdf", **fields}
    return mail(attachments=[{name: value for name, value in whole.items() if value is not ...}])


def fields_of(document: Any) -> list[str | None]:
    return [fault.field for fault in faults_of(document, NOW_S)]


RIGHT: dict[str, dict[str, Any]] = {
    "plain": mail(),
    "no correlation": mail(notification_id=None),
    "a name": mail(personalizations=[{"to": [{"email": "a@example.com", "name": "Ann"}]}]),
    "cc and bcc": block(cc=people(2), bcc=people(2, 5)),
    "1000 recipients": mail(personalizations=[{"to": people(1000)}]),
    "1000 personalizations": mail(personalizations=[{"to": people(1, number)} for number in range(1000)]),
    "the same address in two personalizations": mail(personalizations=[{"to": people(1)}, {"to": people(1)}]),
    "text then html then other": mail(
        content=[{"type": kind, "value": "x"} for kind in ("text/plain", "text/html", "text/calendar", "text/x-amp-html")]
    ),
    "html only": mail(content=[{"type": "text/html", "value": "x"}]),
    "a subject in every personalization": mail(subject=..., personalizations=[{"to": people(1), "subject": "s"}]),
    "a template without subject and content": mail(subject=..., content=..., template_id=TEMPLATE),
    "a legacy template with substitutions": mail(
        template_id=LEGACY_TEMPLATE, personalizations=[{"to": people(1), "substitutions": {"-a-": "b"}}]
    ),
    "dynamic data": mail(template_id=TEMPLATE, personalizations=[{"to": people(1), "dynamic_template_data": {"n": 1}}]),
    "headers": mail(headers={"X-Mine": "1", "List-Unsubscribe": "<https://example.com>"}),
    "own headers": block(headers={"X-Mine": "1"}),
    "categories": mail(categories=[f"c{number}" for number in range(10)]),
    "a category of 255": mail(categories=["c" * 255]),
    "custom args": mail(custom_args={"a": "b"}),
    "send_at in three days": mail(send_at=int(NOW_S) + 72 * 3600),
    "send_at in the past": mail(send_at=1),
    "own send_at": block(send_at=int(NOW_S) + 60),
    "own sender of the same domain": block(**{"from": {"email": "other@EXAMPLE.org"}}),
    "reply_to": mail(reply_to={"email": "r@example.com", "name": "R"}),
    "reply_to_list": mail(reply_to_list=people(1000)),
    "attachment": attachment(type="application/pdf", disposition="inline", content_id="c1"),
    "batch_id": mail(batch_id="x"),
    "asm": mail(asm={"group_id": 1, "groups_to_display": list(range(25))}),
    "pool": mail(ip_pool_name="ab"),
    "sections": mail(sections={"-a-": "b"}),
    "mail settings": mail(mail_settings={"sandbox_mode": {"enable": False}, "footer": {"enable": True, "text": "t"}, "bcc": {}}),
    "tracking": mail(tracking_settings={"click_tracking": {"enable": True, "enable_text": False}}),
    "a field nobody knows": mail(colour="blue"),
}

WRONG: dict[str, tuple[Any, list[str | None]]] = {
    "a list": ([], ["(root)"]),
    "a string": ("mail", ["(root)"]),
    "null": (None, ["(root)"]),
    "nothing": ({}, ["personalizations", "from.email", "content", "subject"]),
    "no personalizations": (mail(personalizations=...), ["personalizations"]),
    "empty personalizations": (mail(personalizations=[]), ["personalizations"]),
    "personalizations of a wrong type": (mail(personalizations={}), ["personalizations"]),
    "a personalization of a wrong type": (mail(personalizations=["a"]), ["personalizations.0"]),
    "1001 personalizations": (mail(personalizations=[{"to": people(1, n)} for n in range(1001)]), ["personalizations"]),
    "no to": (mail(personalizations=[{"cc": people(1)}]), ["personalizations.0.to"]),
    "an empty to": (mail(personalizations=[{"to": []}]), ["personalizations.0.to"]),
    "a null to": (mail(personalizations=[{"to": None}]), ["personalizations.0.to"]),
    "a to of a wrong type": (mail(personalizations=[{"to": {"email": "a@b.cc"}}]), ["personalizations.0.to"]),
    "a person of a wrong type": (mail(personalizations=[{"to": ["a@b.cc"]}]), ["personalizations.0.to.0"]),
    "an email of a wrong type": (mail(personalizations=[{"to": [{"email": ["a@b.cc"]}]}]), ["personalizations.0.to.0.email"]),
    "a person without email": (mail(personalizations=[{"to": [{"name": "Ann"}]}]), ["personalizations.0.to.0.email"]),
    "a bad address": (mail("nobody"), ["personalizations.0.to.0.email"]),
    "a bad cc": (block(cc=[{"email": "a@b@c.dd"}]), ["personalizations.0.cc.0.email"]),
    "a null cc": (block(cc=None), ["personalizations.0.cc"]),
    "a name of a wrong type": (block(cc=[{"email": "c@b.cc", "name": 1}]), ["personalizations.0.cc.0.name"]),
    "a name with a semicolon": (block(bcc=[{"email": "c@b.cc", "name": "a;b"}]), ["personalizations.0.bcc.0.name"]),
    "a name with a comma": (block(cc=[{"email": "c@b.cc", "name": "a,b"}]), ["personalizations.0.cc.0.name"]),
    "1001 in one to": (mail(personalizations=[{"to": people(1001)}]), ["personalizations.0.to", "personalizations"]),
    "1001 together": (
        mail(personalizations=[{"to": people(500), "cc": people(500, 500)}, {"to": people(1)}]),
        ["personalizations"],
    ),
    "twice in to": (mail(personalizations=[{"to": [{"email": "a@b.cc"}, {"email": "A@B.CC"}]}]), ["personalizations.0"]),
    "in to and cc": (block(cc=[{"email": "a@example.com"}]), ["personalizations.0"]),
    "in cc and bcc": (block(cc=people(1), bcc=people(1)), ["personalizations.0"]),
    "an empty own subject": (block(subject=""), ["personalizations.0.subject"]),
    "an own sender elsewhere": (block(**{"from": {"email": "a@example.com"}}), ["personalizations.0.from.email"]),
    "an own sender without address": (block(**{"from": {}}), ["personalizations.0.from.email"]),
    "own headers that are reserved": (block(headers={"X-SG-ID": "1"}), ["personalizations.0.headers"]),
    "own substitutions of a wrong type": (block(substitutions=[]), ["personalizations.0.substitutions"]),
    "too many substitutions": (
        block(substitutions={f"-{number}-": "" for number in range(10_001)}),
        ["personalizations.0.substitutions"],
    ),
    "substitutions with a dynamic template": (
        mail(template_id=TEMPLATE, personalizations=[{"to": people(1), "substitutions": {}}]),
        ["personalizations.0.substitutions"],
    ),
    "dynamic data of a wrong type": (block(dynamic_template_data="{}"), ["personalizations.0.dynamic_template_data"]),
    "own send_at of a wrong type": (block(send_at="soon"), ["personalizations.0.send_at"]),
    "own send_at too far": (block(send_at=int(NOW_S) + 72 * 3600 + 1), ["personalizations.0.send_at"]),
    "own custom args of a wrong type": (block(custom_args="a"), ["personalizations.0.custom_args"]),
    "no sender": (sent_by(...), ["from.email"]),
    "a null sender": (sent_by(None), ["from"]),
    "a sender of a wrong type": (sent_by("a@b.cc"), ["from"]),
    "a sender without email": (sent_by({"name": "A"}), ["from.email"]),
    "a bad sender": (sent_by({"email": "a@b"}), ["from.email"]),
    "no subject": (mail(subject=...), ["subject"]),
    "an empty subject": (mail(subject=""), ["subject"]),
    "a null subject": (mail(subject=None), ["subject"]),
    "a subject in one of two": (
        mail(subject=..., personalizations=[{"to": people(1), "subject": "s"}, {"to": people(1)}]),
        ["subject"],
    ),
    "no content": (mail(content=...), ["content"]),
    "empty content": (mail(content=[]), ["content"]),
    "null content": (mail(content=None), ["content"]),
    "content of a wrong type": (mail(content="hello"), ["content"]),
    "a part of a wrong type": (mail(content=["hello"]), ["content.0"]),
    "a part without value": (mail(content=[{"type": "text/plain"}]), ["content.0.value"]),
    "a part with an empty value": (mail(content=[{"type": "text/plain", "value": ""}]), ["content.0.value"]),
    "a part with a null value": (mail(content=[{"type": "text/plain", "value": None}]), ["content.0.value"]),
    "a part without type": (mail(content=[{"value": "x"}]), ["content.0.type"]),
    "a part with an empty type": (mail(content=[{"type": "", "value": "x"}]), ["content.0.type"]),
    "a type with parameters": (mail(content=[{"type": "text/plain; charset=utf-8", "value": "x"}]), ["content.0.type"]),
    "a type with a line break": (mail(content=[{"type": "text/x\r\n", "value": "x"}]), ["content.0.type"]),
    "html before text": (
        mail(content=[{"type": "text/html", "value": "x"}, {"type": "text/plain", "value": "x"}]),
        ["content"],
    ),
    "other before html": (
        mail(content=[{"type": "text/calendar", "value": "x"}, {"type": "text/html", "value": "x"}]),
        ["content"],
    ),
    "headers of a wrong type": (mail(headers=[]), ["headers"]),
    "a header value of a wrong type": (mail(headers={"X-A": 1}), ["headers"]),
    "a header name with a space": (mail(headers={"X A": "1"}), ["headers"]),
    "a header name outside ASCII": (mail(headers={"X-Ä": "1"}), ["headers"]),
    "a header twice": (mail(headers={"X-A": "1", "x-a": "2"}), ["headers"]),
    "custom args of a wrong type": (mail(custom_args="a"), ["custom_args"]),
    "custom args too large": (mail(notification_id=None, custom_args={"a": "x" * 10_000}), ["custom_args"]),
    "custom args too large together": (
        mail(custom_args={"a": "x" * 6000}, personalizations=[{"to": people(1), "custom_args": {"b": "x" * 6000}}]),
        ["personalizations.0.custom_args"],
    ),
    "eleven categories": (mail(categories=[f"c{number}" for number in range(11)]), ["categories"]),
    "a category twice": (mail(categories=["a", "a"]), ["categories"]),
    "a category of 256": (mail(categories=["c" * 256]), ["categories"]),
    "a category outside ASCII": (mail(categories=["ä"]), ["categories"]),
    "a category of a wrong type": (mail(categories=["a", 1]), ["categories.1"]),
    "categories of a wrong type": (mail(categories="a"), ["categories"]),
    "send_at of a wrong type": (mail(send_at="1800000000"), ["send_at"]),
    "a null send_at": (mail(send_at=None), ["send_at"]),
    "a boolean send_at": (mail(send_at=True), ["send_at"]),
    "send_at too far": (mail(send_at=int(NOW_S) + 72 * 3600 + 1), ["send_at"]),
    "a null reply_to": (mail(reply_to=None), ["reply_to"]),
    "a reply_to of a wrong type": (mail(reply_to=[]), ["reply_to"]),
    "a bad reply_to": (mail(reply_to={"email": "r"}), ["reply_to.email"]),
    "reply_to and reply_to_list": (mail(reply_to={"email": "r@b.cc"}, reply_to_list=people(1)), ["reply_to_list"]),
    "a reply_to_list of a wrong type": (mail(reply_to_list={}), ["reply_to_list"]),
    "1001 in reply_to_list": (mail(reply_to_list=people(1001)), ["reply_to_list"]),
    "twice in reply_to_list": (mail(reply_to_list=people(1) * 2), ["reply_to_list.1.email"]),
    "a bad address in reply_to_list": (mail(reply_to_list=[{}]), ["reply_to_list.0.email"]),
    "attachments of a wrong type": (mail(attachments={}), ["attachments"]),
    "null attachments": (mail(attachments=None), ["attachments"]),
    "an attachment of a wrong type": (mail(attachments=["a"]), ["attachments.0"]),
    "an attachment without content": (attachment(content=...), ["attachments.0.content"]),
    "an attachment that is not base64": (attachment(content="not base64!"), ["attachments.0.content"]),
    "an attachment of half a base64": (attachment(content="abc"), ["attachments.0.content"]),
    "an attachment outside ASCII": (attachment(content="ä==="), ["attachments.0.content"]),
    "an attachment without filename": (attachment(filename=...), ["attachments.0.filename"]),
    "a filename with a line break": (attachment(filename="a\r\nb"), ["attachments.0.filename"]),
    "an attachment type with a semicolon": (attachment(type="a;b"), ["attachments.0.type"]),
    "an empty attachment type": (attachment(type=""), ["attachments.0.type"]),
    "an unknown disposition": (attachment(disposition="hidden"), ["attachments.0.disposition"]),
    "a content id with a line break": (attachment(content_id="a\n"), ["attachments.0.content_id"]),
    "a content id of a wrong type": (attachment(content_id=1), ["attachments.0.content_id"]),
    "a template id that is none": (mail(template_id="welcome"), ["template_id"]),
    "a template id of a wrong type": (mail(template_id=1), ["template_id"]),
    "a batch id of a wrong type": (mail(batch_id=1), ["batch_id"]),
    "asm of a wrong type": (mail(asm=1), ["asm"]),
    "asm without group": (mail(asm={}), ["asm.group_id"]),
    "26 groups": (mail(asm={"group_id": 1, "groups_to_display": list(range(26))}), ["asm.groups_to_display"]),
    "groups of a wrong type": (mail(asm={"group_id": 1, "groups_to_display": ["1"]}), ["asm.groups_to_display"]),
    "a pool name of one": (mail(ip_pool_name="a"), ["ip_pool_name"]),
    "a pool name of 65": (mail(ip_pool_name="a" * 65), ["ip_pool_name"]),
    "a pool name of a wrong type": (mail(ip_pool_name=1), ["ip_pool_name"]),
    "sections of a wrong type": (mail(sections=[]), ["sections"]),
    "a section of a wrong type": (mail(sections={"a": 1}), ["sections"]),
    "a sandbox mode that is not a boolean": (
        mail(mail_settings={"sandbox_mode": {"enable": "true"}}),
        ["mail_settings.sandbox_mode.enable"],
    ),
    "a mail setting of a wrong type": (mail(mail_settings={"footer": True}), ["mail_settings.footer"]),
    "mail settings of a wrong type": (mail(mail_settings=[]), ["mail_settings"]),
    "tracking that is not a boolean": (
        mail(tracking_settings={"open_tracking": {"enable": 1}}),
        ["tracking_settings.open_tracking.enable"],
    ),
    "two faults": (mail(subject="", content=[]), ["content", "subject"]),
}


@pytest.mark.parametrize("case", RIGHT)
def test_a_right_mail_has_no_fault(case: str) -> None:
    assert faults_of(RIGHT[case], NOW_S) == []


@pytest.mark.parametrize("case", WRONG)
def test_each_fault_names_its_field(case: str) -> None:
    document, fields = WRONG[case]

    assert fields_of(document) == fields


@pytest.mark.parametrize("name", [*sorted(RESERVED_HEADERS), "Content-Type", "Reply-To"])
def test_a_reserved_header_is_refused_whatever_its_case(name: str) -> None:
    assert fields_of(mail(headers={name.title(): "1"})) == ["headers"]


@pytest.mark.parametrize(
    "document",
    [mail(custom_args={"user": 1}), block(custom_args={"user": None}), block(substitutions={"-a-": 1})],
)
def test_what_can_not_be_decoded_is_refused_without_naming_a_field(document: dict[str, Any]) -> None:
    with pytest.raises(Unreadable):
        faults_of(document, NOW_S)


def test_custom_args_are_measured_as_json() -> None:
    def fields_with(value: str) -> list[str | None]:
        return fields_of(mail(notification_id=None, custom_args={"a": value}))

    assert len('{"a":""}') == 8
    assert fields_with("x" * 9_992) == []
    assert fields_with("x" * 9_993) == ["custom_args"]
    assert fields_with("ä" * 4_996) == []
    assert fields_with("ä" * 4_997) == ["custom_args"]


@pytest.mark.parametrize(
    ("document", "message", "section"),
    [
        ([], "Invalid type. Expected: object, given: array.", "-Request-Body-Parameters"),
        (sent_by("a"), "Invalid type. Expected: object, given: string.", "message.from"),
        (mail(attachments=None), "Invalid type. Expected: array, given: null.", "message.attachments"),
        (mail(send_at=1.5), "Invalid type. Expected: integer, given: number.", "message.send_at"),
        (mail(custom_args="a"), "Invalid type. Expected: object, given: string.", "message.custom_args"),
        (block(to=[{"email": []}]), "Invalid type. Expected: string, given: array.", "message.personalizations.to"),
        (mail("nobody"), "Does not contain a valid address.", "message.personalizations.to"),
        (mail(personalizations=...), None, "-Personalizations-Errors"),
        (mail(content=[{"type": "a", "value": ""}]), None, "message.content.value"),
        (attachment(content="!"), "The attachment content must be base64 encoded.", "message.attachments.content"),
        (block(cc=[{"email": "a@example.com"}]), None, "message.recipient-errors"),
    ],
)
def test_a_fault_is_worded_and_linked_as_the_real_one_does(document: Any, message: str | None, section: str) -> None:
    (fault,) = faults_of(document, NOW_S)

    assert fault.help == HELP + section
    assert message is None or fault.message == message


def test_a_personalization_of_a_wrong_type_has_no_link() -> None:
    assert [fault.help for fault in faults_of(mail(personalizations=[None]), NOW_S)] == [None]


def test_a_duplicate_is_named_as_the_real_one_names_it() -> None:
    (fault,) = faults_of(block(cc=[{"email": "A@example.com"}]), NOW_S)

    assert "first duplicate instance of [A@example.com] in the personalizations.0.cc field" in fault.message


@pytest.mark.parametrize(
    "address",
    ["a@example.com", "first.last+tag@sub.example.co.uk", "o'neil@example.org", "x@xn--bcher-kva.example", "a@bücher.example",
     "a" * 64 + "@example.com", "1@2.dd", "_@a-b.cc"],
)  # fmt: skip
def test_an_address_is_taken(address: str) -> None:
    assert is_address(address)


@pytest.mark.parametrize(
    "address",
    ["", "a", "@example.com", "a@", "a@b", "a@b.c", "a@b.12", "a b@example.com", "a@exa mple.com", ".a@example.com",
     "a.@example.com", "a..b@example.com", "a@-b.cc", "a@b-.cc", "a@b..cc", "a@example.com.", "ä@example.com",
     "a@b@c.dd", "a@example.com\n",
     "a" * 65 + "@example.com", "a@" + "b" * 64 + ".cc", "a@" + "b." * 126 + "cc", "<a@example.com>", "a@[127.0.0.1]"],
)  # fmt: skip
def test_what_is_no_address_is_refused(address: str) -> None:
    assert not is_address(address)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from([
            "personalizations", "to", "cc", "email", "name", "from", "subject", "content", "type", "value", "headers",
            "categories", "custom_args", "send_at", "attachments", "filename", "reply_to", "reply_to_list",
            "asm", "group_id", "mail_settings",
            "sandbox_mode", "enable", "template_id", "substitutions", "sections", "tracking_settings", "ip_pool_name",
        ]),
        inner,
        max_size=6,
    ),
    max_leaves=25,
)  # fmt: skip


@given(_JSON)
def test_no_json_at_all_upsets_the_rules(document: Any) -> None:
    try:
        faults = faults_of(document, NOW_S)
    except Unreadable:
        return
    assert faults, "chance does not write mails without faults"


@given(st.dictionaries(st.sampled_from(sorted(mail())), _JSON, max_size=4))
def test_no_value_of_a_known_field_upsets_the_rules(fields: dict[str, Any]) -> None:
    try:
        faults_of(mail(**fields), NOW_S)
    except Unreadable:
        return
