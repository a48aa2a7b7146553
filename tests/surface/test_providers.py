"""Provider configurations over HTTP: what goes in is checked and sealed, and credentials never come out."""

from __future__ import annotations

from typing import Any, cast

import httpx
import pytest
from attrs import evolve
from quart_trio.wrappers import TrioRequest

from actors.prober import ProbeReport
from actors.store import providers as store
from actors.store.api_keys import Scope
from actors.store.providers import sealing_context
from dispatcher.errors import ConfigError, QueueUnavailable
from dispatcher.model import OrganizationId
from dispatcher.problems import Refused
from dispatcher.providers.probing import Probed
from dispatcher.providers.provider import invalid
from dispatcher.providers.registry import Unbindable
from dispatcher.vault import EncryptionKeys, open_sealed
from dispatcher_http import providers
from dispatcher_http.routing import Call
from surface_doubles import Surface, assert_problem

PATH = "/v1/orgs/acme/providers"
ACME = OrganizationId("acme")
SECRET = "SG.very-secret"
BODY: dict[str, Any] = {
    "provider": "sendgrid",
    "channel": "email",
    "credentials": {"api_key": SECRET},
    "settings": {"from_email": "tickets@example.org"},
    "priority": 1,
}


async def create(surface: Surface, **changes: Any) -> httpx.Response:
    return await surface.client.post(
        PATH, json=BODY | changes, headers=await surface.authorization("acme", Scope.PROVIDERS_WRITE)
    )


async def test_one_is_created_with_its_credentials_sealed_to_its_row(surface: Surface) -> None:
    response = await create(surface)

    assert response.status_code == 201
    document = response.json()
    assert response.headers["location"] == f"{PATH}/{document['id']}"
    assert document["credential_fields"] == ["api_key"]
    assert (document["settings"], document["priority"], document["revision"]) == (BODY["settings"], 1, 1)
    assert surface.dispatch.changes == ["acme"]
    (stored,) = await store.read_all(surface.services.pool, ACME)
    assert SECRET.encode() not in stored.sealed
    assert surface.services.encryption_keys is not None
    opened = open_sealed(surface.services.encryption_keys, stored.sealed, sealing_context(ACME, stored.id))
    assert opened == b'{"api_key":"SG.very-secret"}'


async def test_no_answer_contains_credentials(surface: Surface) -> None:
    headers = await surface.authorization()
    created = await create(surface)
    target = f"{PATH}/{created.json()['id']}"

    answers = [
        created,
        await surface.client.get(PATH, headers=headers),
        await surface.client.get(target, headers=headers),
        await surface.client.put(
            target, json={"credentials": {"api_key": SECRET}, "settings": BODY["settings"]}, headers=headers
        ),
        await create(surface, credentials={"api_key": SECRET, SECRET: SECRET}),
        await create(surface, credentials={"api_key": [SECRET]}, provider=SECRET),
        await create(surface, credentials=SECRET),
        await create(surface, settings={"from_email": SECRET, SECRET: 1}, **{SECRET: SECRET}),
    ]

    assert [answer.status_code for answer in answers] == [201, 200, 200, 200, 422, 422, 422, 422]
    assert all(SECRET not in answer.text + repr(answer.headers) for answer in answers)


async def test_the_list_and_the_one_show_the_same(surface: Surface) -> None:
    headers = await surface.authorization("acme", Scope.PROVIDERS_READ)
    first, second = (await create(surface)).json(), (await create(surface, priority=0)).json()

    listed = (await surface.client.get(PATH, headers=headers)).json()
    page = (await surface.client.get(f"{PATH}?page_size=1", headers=headers)).json()
    rest = (await surface.client.get(f"{PATH}?page_size=1&after={page['page']['next']}", headers=headers)).json()

    assert listed == {"items": [second, first], "page": {"next": None}}
    assert page["items"] + rest["items"] == listed["items"]
    assert (await surface.client.get(f"{PATH}/{first['id']}", headers=headers)).json() == first


async def test_replacing_without_credentials_keeps_them(surface: Surface) -> None:
    headers = await surface.authorization("acme", Scope.PROVIDERS_WRITE)
    created = (await create(surface)).json()
    (before,) = await store.read_all(surface.services.pool, ACME)

    response = await surface.client.put(
        f"{PATH}/{created['id']}", json={"settings": {"from_email": "new@example.org"}, "priority": 5}, headers=headers
    )

    assert response.status_code == 200
    assert (response.json()["settings"], response.json()["priority"]) == ({"from_email": "new@example.org"}, 5)
    assert response.json()["revision"] == 2
    (after,) = await store.read_all(surface.services.pool, ACME)
    assert after.sealed == before.sealed
    assert surface.dispatch.changes == ["acme", "acme"]


async def test_replacing_credentials_seals_the_new_ones(surface: Surface) -> None:
    headers = await surface.authorization("acme", Scope.PROVIDERS_WRITE)
    created = (await create(surface)).json()

    replaced = {"provider": "sendgrid", "channel": "email", "credentials": {"api_key": "SG.new"}, "settings": BODY["settings"]}
    response = await surface.client.put(f"{PATH}/{created['id']}", json=replaced, headers=headers)

    assert response.status_code == 200
    (stored,) = await store.read_all(surface.services.pool, ACME)
    assert surface.services.encryption_keys is not None
    assert b"SG.new" in open_sealed(surface.services.encryption_keys, stored.sealed, sealing_context(ACME, stored.id))


async def test_what_a_configuration_is_for_cannot_be_changed(surface: Surface) -> None:
    created = (await create(surface)).json()

    response = await surface.client.put(
        f"{PATH}/{created['id']}", json=BODY | {"channel": "sms"}, headers=await surface.authorization()
    )

    assert assert_problem(response, 422, "field_immutable")["pointer"] == "/channel"


async def test_one_is_removed(surface: Surface) -> None:
    headers = await surface.authorization("acme", Scope.PROVIDERS_WRITE)
    target = f"{PATH}/{(await create(surface)).json()['id']}"

    assert (await surface.client.delete(target, headers=headers)).status_code == 204
    assert_problem(await surface.client.delete(target, headers=headers), 404, "provider_not_found")
    assert_problem(await surface.client.put(target, json=BODY, headers=headers), 404, "provider_not_found")
    assert await store.read_all(surface.services.pool, ACME) == []
    assert surface.dispatch.changes == ["acme", "acme"]


@pytest.mark.parametrize(
    ("change", "pointer", "code"),
    [
        ({"provider": "carrier-pigeon"}, "/provider", "field_invalid"),
        ({"provider": None}, "/provider", "field_missing"),
        ({"channel": "sms"}, "/channel", "field_invalid"),
        ({"channel": 7}, "/channel", "field_invalid"),
        ({"credentials": {}}, "/credentials/api_key", "setting_missing"),
        ({"credentials": None}, "/credentials", "field_missing"),
        ({"credentials": {"api_key": "x" * 40_000}}, "/credentials", "field_invalid"),
        ({"settings": {"from_email": "a@b.example", "signature": "x" * 40_000}}, "/settings", "field_invalid"),
        ({"settings": {"from_email": "a\u0000@b.example"}}, "/settings", "field_invalid"),
        ({"settings": {}}, "/settings/from_email", "setting_missing"),
        ({"settings": BODY["settings"] | {"base_url": "http://169.254.169.254"}}, "/settings/base_url", "base_url_not_allowed"),
        ({"priority": -1}, "/priority", "field_invalid"),
        ({"prioritty": 1}, "/prioritty", "field_unknown"),
    ],
)
async def test_what_cannot_be_used_is_refused_at_its_place(
    surface: Surface, change: dict[str, Any], pointer: str, code: str
) -> None:
    response = await create(surface, **change)

    assert assert_problem(response, 422, code)["pointer"] == pointer
    assert await store.read_all(surface.services.pool, ACME) == []
    assert surface.dispatch.changes == []


async def test_the_origins_of_whoever_runs_the_dispatcher_may_be_named(surface: Surface) -> None:
    settings = BODY["settings"] | {"base_url": surface.services.provider_urls_extra[0]}

    assert (await create(surface, settings=settings)).status_code == 201


async def test_a_change_that_cannot_be_announced_is_on_record_nevertheless(surface: Surface) -> None:
    surface.dispatch.failure = QueueUnavailable("away")

    assert (await create(surface)).status_code == 201
    assert len(await store.read_all(surface.services.pool, ACME)) == 1


async def test_a_foreign_configuration_does_not_exist(surface: Surface) -> None:
    headers = await surface.authorization("globex")
    target = f"/v1/orgs/globex/providers/{(await create(surface)).json()['id']}"

    assert_problem(await surface.client.get(target, headers=headers), 404, "provider_not_found")
    assert_problem(await surface.client.put(target, json=BODY, headers=headers), 404, "provider_not_found")
    assert_problem(await surface.client.delete(target, headers=headers), 404, "provider_not_found")


@pytest.mark.parametrize("keys", [None, EncryptionKeys.of({"other": bytes(32)})])
async def test_a_configuration_no_key_opens_is_shown_without_its_fields(surface: Surface, keys: EncryptionKeys | None) -> None:
    created = (await create(surface)).json()
    services = evolve(surface.services, encryption_keys=keys)
    (read,) = [route.view for route in providers.routes(services) if (route.method, route.rule[-5:]) == ("GET", "/<id>")]

    async with surface.app.test_request_context("/") as context:
        response = await read(Call(ACME, {"id": created["id"]}, cast("TrioRequest", context.request)))

    assert b'"credential_fields":null' in await response.get_data()


async def test_without_encryption_keys_no_credentials_are_taken(surface: Surface) -> None:
    services = evolve(surface.services, encryption_keys=None)
    views = {(route.method, route.rule.rpartition("/")[2]): route.view for route in providers.routes(services)}
    create_view = views["POST", "providers"]

    async with surface.app.test_request_context("/", method="POST", json=BODY) as context:
        with pytest.raises(Refused, match="encryption_keys_missing") as refused:
            await create_view(Call(ACME, {}, cast("TrioRequest", context.request)))

    assert refused.value.problem.status == 503


async def test_scopes_are_told_apart(surface: Surface) -> None:
    target = f"{PATH}/{surface.services.new_id()}"
    reader = await surface.authorization("acme", Scope.PROVIDERS_READ)
    writer = await surface.authorization("acme", Scope.PROVIDERS_WRITE)

    for method, address in (("POST", PATH), ("PUT", target), ("DELETE", target)):
        assert_problem(await surface.client.request(method, address, headers=reader), 403, "scope_missing")
    for address in (PATH, target):
        assert_problem(await surface.client.get(address, headers=writer), 403, "scope_missing")


# --- trying out ---------------------------------------------------------------------------------------------


async def tried(surface: Surface, body: dict[str, Any] | None, organization: str = "acme") -> httpx.Response:
    id = (await create(surface)).json()["id"]
    headers = await surface.authorization(organization, Scope.PROVIDERS_WRITE)
    return await surface.client.post(f"/v1/orgs/{organization}/providers/{id}/test", json=body, headers=headers)


@pytest.mark.parametrize("body", [None, {}, {"recipient": "ann@example.com"}])
async def test_a_test_answers_in_words(surface: Surface, body: dict[str, Any] | None) -> None:
    surface.dispatch.report = ProbeReport(Probed(False, "key_refused", "Make another key."), 0.25)
    response = await tried(surface, body)

    assert response.status_code == 200
    assert response.json() == {"ok": False, "code": "key_refused", "detail": "Make another key.", "duration_s": 0.25}
    assert surface.dispatch.probes[0][2] == (body or {}).get("recipient")


@pytest.mark.parametrize("body", [{"recipient": "+49301234567"}, {"recipient": 3}, {"to": "ann@example.com"}, []])
async def test_a_test_with_a_bad_body_is_refused_and_tries_nothing(surface: Surface, body: Any) -> None:
    response = await tried(surface, body)

    assert response.status_code in (400, 422)
    assert surface.dispatch.probes == []


async def test_a_foreign_configuration_can_not_be_tried(surface: Surface) -> None:
    assert_problem(await tried(surface, {}, "globex"), 404, "provider_not_found")
    assert surface.dispatch.probes == []


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (ConfigError("sealed with another key"), "credentials_not_opened"),
        (Unbindable(invalid("/settings/base_url", "is not allowed", "base_url_not_allowed")), "base_url_not_allowed"),
    ],
)
async def test_what_can_not_be_used_at_all_is_told_as_well(surface: Surface, failure: Exception, code: str) -> None:
    id = (await create(surface)).json()["id"]
    surface.dispatch.failure = failure
    response = await surface.client.post(f"{PATH}/{id}/test", headers=await surface.authorization("acme", Scope.PROVIDERS_WRITE))

    assert (response.status_code, response.json()["ok"], response.json()["code"]) == (200, False, code)
