"""Catalogues over HTTP: as documents, as PO files, and in the templates that take their words from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx

from actors.store.api_keys import Scope
from surface_doubles import Surface, assert_problem

ENGLISH = {"messages": {"hello": {"text": "Hello {name}"}, "bye": {"text": "Goodbye"}}}
GERMAN = {"messages": {"hello": {"text": "Hallo {name}", "source": "Hi {name}"}}}
SMS = {"name": "greeting", "channel": "sms", "locale": "en", "body_template": "{{ 'hello'|t(name=name) }}"}
PO = "text/x-gettext-translation"


async def call(
    surface: Surface, method: str, path: str, document: Any = None, headers: Mapping[str, str] | None = None
) -> httpx.Response:
    return await surface.client.request(
        method, f"/v1/orgs/acme/{path}", json=document, headers={**await surface.authorization("acme"), **(headers or {})}
    )


async def put_po(surface: Surface, locale: str, data: bytes, media_type: str = PO, **headers: str) -> httpx.Response:
    authorization = await surface.authorization("acme")
    return await surface.client.put(
        f"/v1/orgs/acme/catalogues/{locale}/po", content=data, headers={**authorization, "content-type": media_type, **headers}
    )


async def test_a_stale_translation_is_shown_as_such_and_exported_as_fuzzy(surface: Surface) -> None:
    await call(surface, "PUT", "catalogues/en", ENGLISH)
    stored = await call(surface, "PUT", "catalogues/de", GERMAN)
    exported = await call(surface, "GET", "catalogues/de/po")

    assert stored.json()["state"] == {"stale": ["hello"], "missing": ["bye"], "unused": [], "differing": []}
    assert (exported.status_code, exported.headers["content-type"]) == (200, f"{PO}; charset=utf-8")
    assert exported.headers["content-disposition"] == 'attachment; filename="de.po"'
    assert exported.headers["etag"] == stored.headers["etag"]
    assert '#, fuzzy, python-brace-format\n#| msgid "Hi {name}"\nmsgctxt "hello"\nmsgid "Hello {name}"\n' in exported.text
    assert 'msgctxt "bye"\nmsgid "Goodbye"\nmsgstr ""\n' in exported.text


async def test_a_file_that_was_read_can_be_stored_again_and_changes_nothing(surface: Surface) -> None:
    await call(surface, "PUT", "catalogues/en", ENGLISH)
    await call(surface, "PUT", "catalogues/de", GERMAN)

    for locale, body in (("de", GERMAN), ("en", ENGLISH)):
        exported = await call(surface, "GET", f"catalogues/{locale}/po")
        stored = await put_po(surface, locale, exported.content, **{"if-match": exported.headers["etag"]})
        assert (stored.status_code, stored.json()["body"], stored.headers["etag"]) == (200, body, exported.headers["etag"])


async def test_a_language_that_is_not_begun_is_a_file_to_begin_with(surface: Surface) -> None:
    assert_problem(await call(surface, "GET", "catalogues/fr/po"), 404, "catalogue_not_found")
    await call(surface, "PUT", "catalogues/en", ENGLISH)

    empty = (await call(surface, "GET", "catalogues/fr/po")).text
    translated = empty.replace('msgid "Goodbye"\nmsgstr ""', 'msgid "Goodbye"\nmsgstr "Au revoir"')
    stored = await put_po(surface, "fr", translated.encode(), f"{PO};charset=UTF-8")

    assert (stored.status_code, stored.json()["body"]) == (
        201,
        {"messages": {"bye": {"text": "Au revoir", "source": "Goodbye"}}},
    )
    assert surface.dispatch.changes == ["acme"] * 2


async def test_a_file_that_can_not_be_used_is_refused_with_every_fault(surface: Surface) -> None:
    faulty = b'msgctxt "a"\nmsgid "x"\nmsgstr "{"\n\nmsgid "y"\nmsgstr "z"\n'
    problem = assert_problem(await put_po(surface, "de", faulty), 422, "po_key")

    assert [(each["pointer"], each["code"]) for each in problem["errors"]] == [
        ("/lines/5", "po_key"),
        ("/messages/a/text", "placeholder_invalid"),
    ]
    assert_problem(await put_po(surface, "de", b"\xff"), 422, "po_encoding")
    assert_problem(await put_po(surface, "de", b"", "application/json"), 415, "media_type_unsupported")
    assert_problem(await put_po(surface, "de", b"", f"{PO}; charset=latin-1"), 415, "media_type_unsupported")
    assert_problem(await put_po(surface, "de", b"", **{"content-encoding": "gzip"}), 415, "media_type_unsupported")
    assert_problem(await put_po(surface, "pt_BR", b""), 404, "catalogue_not_found")
    assert_problem(await put_po(surface, "de", b"", **{"if-match": '"old"'}), 412, "precondition_failed")
    assert surface.dispatch.changes == []


async def test_files_need_the_scope_of_the_set_up(surface: Surface) -> None:
    for method, scope in (("GET", Scope.TEMPLATES_READ), ("PUT", Scope.SETUP_READ)):
        headers = await surface.authorization("acme", scope)
        answer = await surface.client.request(method, "/v1/orgs/acme/catalogues/de/po", headers=headers)
        assert answer.status_code == 403


async def test_a_template_that_misses_words_does_not_come_into_force(surface: Surface) -> None:
    assert_problem(await call(surface, "POST", "templates", SMS), 422, "template_message_missing")
    await call(surface, "PUT", "catalogues/en", {"messages": {"hello": {"text": "Hello {name} {surname}"}}})
    refused = assert_problem(await call(surface, "POST", "templates", SMS), 422, "template_message_argument_missing")
    assert (refused["pointer"], "'surname'" in refused["detail"]) == ("/body_template", True)

    assert (await call(surface, "POST", "templates", SMS | {"draft": True})).status_code == 201
    assert_problem(
        await call(surface, "POST", "templates/publish", {"name": "greeting"}), 422, "template_message_argument_missing"
    )
    await call(surface, "PUT", "catalogues/en", ENGLISH)
    assert (await call(surface, "POST", "templates/publish", {"name": "greeting"})).status_code == 200


async def test_a_preview_takes_its_words_from_the_catalogues(surface: Surface) -> None:
    await call(surface, "PUT", "catalogues/en", ENGLISH)
    await call(surface, "PUT", "catalogues/de", GERMAN)
    template = (await call(surface, "POST", "templates", SMS)).json()["id"]

    async def text(locale: str) -> str:
        answer = await call(surface, "POST", f"templates/{template}/preview", {"variables": {"name": "Ana"}, "locale": locale})
        shown: str = answer.json()["payload"]["text"]
        return shown

    assert [await text(locale) for locale in ("de-AT", "fr")] == ["Hallo Ana", "Hello Ana"]


async def test_the_default_catalogue_keeps_what_a_template_in_force_uses(surface: Surface) -> None:
    await call(surface, "PUT", "catalogues/en", ENGLISH)
    await call(surface, "PUT", "catalogues/de", GERMAN)
    await call(surface, "POST", "templates", SMS)

    for method, document in (
        ("PUT", {"messages": {"bye": {"text": "Goodbye"}}}),
        ("PUT", {"messages": {"hello": {"text": "{greeting}"}}}),
        ("DELETE", None),
    ):
        problem = assert_problem(await call(surface, method, "catalogues/en", document), 409, "catalogue_in_use")
        assert "'greeting' (sms, en)" in problem["detail"]
    assert (await call(surface, "GET", "catalogues/en")).json()["body"] == ENGLISH
    assert (await call(surface, "PUT", "catalogues/de", {"messages": {}})).status_code == 200
    assert (await call(surface, "DELETE", "catalogues/de")).status_code == 204
    assert (await call(surface, "PUT", "catalogues/en", {"messages": {"hello": {"text": "Hi {name}"}}})).status_code == 200


async def test_a_layout_can_not_bring_words_that_are_not_there(surface: Surface) -> None:
    await call(surface, "PUT", "layouts/base", {"text": "{{ content }}"})
    template = {"name": "wrapped", "channel": "sms", "locale": "en", "body_template": "x", "layout": "base"}
    assert (await call(surface, "POST", "templates", template)).status_code == 201

    wordy = {"text": "{{ content }} {{ 'bye'|t }}"}
    assert_problem(await call(surface, "PUT", "layouts/base", wordy), 409, "layout_in_use")
    await call(surface, "PUT", "catalogues/en", ENGLISH)
    assert (await call(surface, "PUT", "layouts/base", wordy)).status_code == 200
    assert_problem(await call(surface, "PUT", "catalogues/en", {"messages": {}}), 409, "catalogue_in_use")


async def test_a_set_up_that_is_pushed_is_checked_for_its_words_as_it_will_stand(surface: Surface) -> None:
    template = {name: value for name, value in SMS.items() if name != "draft"}
    whole = {"catalogues": {"en": ENGLISH}, "templates": [template]}

    missing = assert_problem(await call(surface, "POST", "setup", {"templates": [template]}), 422, "template_message_missing")
    assert missing["pointer"] == "/templates/0/body_template"
    assert (await call(surface, "POST", "setup", whole)).status_code == 200
    emptied = {"catalogues": {"en": {"messages": {"bye": {"text": "Bye"}}}}}
    lost = assert_problem(await call(surface, "POST", "setup", emptied), 422, "template_message_missing")
    assert ("'greeting' (sms, en)" in lost["detail"], lost["pointer"]) == (True, "/catalogues")
    last = await call(surface, "POST", "setup", emptied | {"templates": [], "prune": True})
    assert last.status_code == 200, last.text
