"""Unsubscribing by a link: what a person sees, and what their mail program does without them."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from string import Formatter
from typing import Any

import httpx
import pytest
from attrs import asdict, evolve

from actors.store import contacts
from dispatcher.contacts import ContactStatus, address_of
from dispatcher.model import Channel, OrganizationId
from dispatcher.people import ANY
from dispatcher.unsubscribe import PATH, Unsubscription
from dispatcher_http.unsubscribe_words import WORDS, language_for
from people_world import Desk
from surface_doubles import Surface, assert_problem

ONE_CLICK = {"List-Unsubscribe": "One-Click"}
ADA = Unsubscription(OrganizationId("acme"), Channel.EMAIL, "offers", user_id="ada", issued_at_s=2_000_000_000, locale="pt-BR")
EVE = evolve(ADA, user_id=None, address=address_of(Channel.EMAIL, "eve@example.org"), locale=None)


def path_of(surface: Surface, wish: Unsubscription) -> str:
    assert surface.services.links is not None
    return PATH + surface.services.links.token(wish)


async def look(surface: Surface, wish: Unsubscription) -> httpx.Response:
    return await surface.client.get(path_of(surface, wish))


async def click(surface: Surface, wish: Unsubscription) -> httpx.Response:
    return await surface.client.post(path_of(surface, wish), data=ONE_CLICK)


async def desk_of(surface: Surface) -> Desk:
    desk = Desk(surface)
    await desk.add_topics()
    await desk.put("/ada", {})
    return desk


async def said(desk: Desk) -> dict[tuple[str, str], tuple[bool, str]]:
    rows = (await desk.get("/ada/preferences"))["preferences"]
    return {(row["topic"], row["channel"]): (row["allowed"], row["source"]) for row in rows}


async def status_of(surface: Surface, recipient: str) -> ContactStatus | None:
    found = await contacts.find(surface.services.pool, OrganizationId("acme"), Channel.EMAIL, recipient)
    return None if found is None else found.contact.status


class Page(HTMLParser):
    """The elements of a page and their text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def one(self, tag: str) -> dict[str, str | None]:
        (found,) = [attributes for name, attributes in self.elements if name == tag]
        return found


async def test_looking_at_a_link_changes_nothing_however_often(surface: Surface) -> None:
    desk = await desk_of(surface)
    for _ in range(3):
        assert (await look(surface, ADA)).status_code == 200

    assert (await surface.client.head(path_of(surface, ADA))).status_code in (200, 405)
    assert await said(desk) == {}


async def test_one_click_of_a_mail_program_is_a_preference_of_the_user_however_often(surface: Surface) -> None:
    desk = await desk_of(surface)

    answers = [await click(surface, ADA) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert await said(desk) == {("offers", "email"): (False, "unsubscribe_link")}
    assert not answers[0].headers.get_list("set-cookie")


async def test_the_form_of_the_page_is_what_unsubscribes(surface: Surface) -> None:
    desk = await desk_of(surface)
    page = Page((await look(surface, ADA)).text)
    form, field = page.one("form"), page.one("input")

    answer = await surface.client.post(path_of(surface, ADA), data={str(field["name"]): str(field["value"])})

    assert (form["method"], form.get("action"), page.one("button")["type"]) == ("post", None, "submit")
    assert answer.status_code == 200
    assert WORDS["pt"].done_title in answer.text
    assert "<form" not in answer.text
    assert await said(desk) == {("offers", "email"): (False, "unsubscribe_link")}


async def test_a_form_in_parts_counts_as_well_and_anything_else_does_not(surface: Surface) -> None:
    desk, path = await desk_of(surface), path_of(surface, ADA)
    for body in ({"List-Unsubscribe": "Two-Click"}, {}, {"other": "One-Click"}):
        assert_problem(await surface.client.post(path, data=body), 400, "not_one_click")
    assert_problem(await surface.client.post(path, content=b"List-Unsubscribe=One-Click"), 400, "not_one_click")
    assert_problem(await surface.client.post(path, data={**ONE_CLICK, "more": "x" * 5000}), 413, "body_too_large")
    assert await said(desk) == {}

    assert (await surface.client.post(path, files={"List-Unsubscribe": (None, "One-Click")})).status_code == 200
    assert await said(desk) == {("offers", "email"): (False, "unsubscribe_link")}


async def test_who_is_no_user_is_unsubscribed_as_a_contact_that_is_known_by_a_digest(surface: Surface) -> None:
    await desk_of(surface)

    for _ in range(2):
        assert (await click(surface, EVE)).status_code == 200

    found = await contacts.find(surface.services.pool, OrganizationId("acme"), Channel.EMAIL, "EVE@example.org")
    assert found is not None
    assert (found.contact.status, found.recipient) == (ContactStatus.UNSUBSCRIBED, "")
    assert [(change.id, change.status) for change in surface.dispatch.contact_changes] == [(found.id, ContactStatus.UNSUBSCRIBED)]


async def test_a_worse_status_of_a_contact_stays(surface: Surface) -> None:
    await desk_of(surface)
    wanted = contacts.Wanted(Channel.EMAIL, "eve@example.org", ContactStatus.COMPLAINED)
    await contacts.change(surface.services.pool, OrganizationId("acme"), [wanted], None)

    assert (await click(surface, EVE)).status_code == 200

    assert await status_of(surface, "eve@example.org") is ContactStatus.COMPLAINED


async def test_to_leave_everything_is_to_leave_what_was_asked_for_in_particular_too(surface: Surface) -> None:
    desk = await desk_of(surface)
    for place in ("offers/*", "reminders/email", "security/sms"):
        await desk.put(f"/ada/preferences/{place}", {"allowed": True})

    assert (await click(surface, evolve(ADA, topic=ANY))).status_code == 200

    effect: Any = {each["topic"]: each for each in (await desk.get("/ada/preferences"))["topics"]}
    assert {name: topic["channels"]["email"] for name, topic in effect.items()} == {
        "offers": False, "reminders": False, "security": True,
    }  # fmt: skip
    assert effect["offers"]["channels"]["sms"]


async def test_a_link_to_who_is_gone_does_nothing_to_whoever_bears_the_id_now(surface: Surface) -> None:
    desk = await desk_of(surface)

    assert (await click(surface, evolve(ADA, user_id="nobody"))).status_code == 200
    assert (await click(surface, evolve(ADA, issued_at_s=1_000_000_000))).status_code == 200

    assert await said(desk) == {}


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_link_that_is_wrong_is_not_found_and_nothing_is_said_of_why(surface: Surface, method: str) -> None:
    desk = await desk_of(surface)
    path = path_of(surface, ADA)
    wrong = [path[:-1] + ("A" if path[-1] != "A" else "B"), PATH + "x", PATH + "%00", path + "A", path[:-10],
             path_of(surface, evolve(ADA, organization_id=OrganizationId("nobodys")))]  # fmt: skip

    answers = [await surface.client.request(method, each, data=ONE_CLICK if method == "POST" else None) for each in wrong]

    assert {answer.status_code for answer in answers} == {404}
    assert len({answer.text for answer in answers}) == 1
    assert await said(desk) == {}


async def test_the_page_speaks_the_language_of_the_message_and_names_topic_and_sender_safely(surface: Surface) -> None:
    await desk_of(surface)
    await surface.services.pool.execute("UPDATE organizations SET name = '<b>Hall & Co</b>' WHERE id = 'acme'")

    page = Page((await look(surface, ADA)).text)
    assert (page.one("html")["lang"], page.one("html")["dir"]) == ("pt", "ltr")
    assert "“\u2068Offers\u2069” de \u2068<b>Hall & Co</b>\u2069?" in page.text
    assert "b" not in [tag for tag, _ in page.elements]
    arabic = Page((await look(surface, evolve(ADA, locale="ar-EG"))).text)
    assert (arabic.one("html")["lang"], arabic.one("html")["dir"]) == ("ar", "rtl")
    assert Page((await look(surface, evolve(ADA, locale="fi"))).text).one("html")["lang"] == "en"
    assert "Offers" not in (await look(surface, EVE)).text


async def test_a_page_can_be_read_by_everybody_and_has_what_readers_by_ear_need(surface: Surface) -> None:
    await desk_of(surface)
    page = Page((await look(surface, ADA)).text)
    tags = [tag for tag, _ in page.elements]

    assert [tags.count(tag) for tag in ("main", "h1", "title", "button")] == [1, 1, 1, 1]
    assert page.one("html")["lang"]
    assert any(attributes.get("name") == "viewport" for tag, attributes in page.elements if tag == "meta")


async def test_no_page_is_kept_framed_passed_on_or_can_load_anything(surface: Surface) -> None:
    await desk_of(surface)
    person = evolve(ADA, user_id="somebody-in-particular")
    wrong = await surface.client.get(PATH + "x")
    for answer in (await look(surface, person), await click(surface, person), wrong):
        headers = answer.headers
        assert headers["content-type"] == "text/html; charset=utf-8"
        assert (headers["cache-control"], headers["referrer-policy"]) == ("no-store", "no-referrer")
        assert headers["x-content-type-options"] == "nosniff"
        policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
        assert (policy["default-src"], policy["frame-ancestors"], policy["form-action"]) == ("'none'", "'none'", "'self'")
        assert "script" not in answer.text
        assert "particular" not in answer.text


def test_every_language_has_every_sentence_with_the_same_places() -> None:
    def places(text: str) -> set[str | None]:
        return {name for _, name, _, _ in Formatter().parse(text) if name is not None}

    for language, words in WORDS.items():
        assert {name: places(text) for name, text in asdict(words).items()} == {
            name: places(text) for name, text in asdict(WORDS["en"]).items()
        }, language
        assert re.search(r"\S", words.title)


@pytest.mark.parametrize(
    ("locale", "language"), [(None, "en"), ("pt-BR", "pt"), ("de-CH-1996", "de"), ("fi", "en"), ("he", "he")]
)
def test_the_language_is_the_nearest_that_is_known(locale: str | None, language: str) -> None:
    assert language_for(locale) == language
