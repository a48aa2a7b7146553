"""The shipped presets over HTTP and at a terminal: listed, tried, installed, and never laid over what was changed."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import trio

from actors.store.api_keys import Scope
from dispatcher.model import OrganizationId
from dispatcher.presets import PRESETS
from dispatcher_http.cli import main
from surface_doubles import Surface, assert_problem

ACME = OrganizationId("acme")
BASE = "/v1/orgs/acme"


async def install(surface: Surface, name: str, **query: str) -> httpx.Response:
    return await surface.client.post(
        f"{BASE}/presets/{name}/install", params=query, headers=await surface.authorization("acme", Scope.SETUP_WRITE)
    )


async def get(surface: Surface, path: str) -> Any:
    answer = await surface.client.get(f"{BASE}/{path}", headers=await surface.authorization("acme", Scope.SETUP_READ))
    assert answer.status_code == 200, answer.text
    return answer.json()


def names(report: dict[str, Any], verb: str) -> set[tuple[str, str]]:
    return {(thing["kind"], thing["name"]) for thing in report[verb]}


async def test_the_presets_are_listed_with_what_they_bring(surface: Surface) -> None:
    listed = (await get(surface, "presets"))["items"]
    one = await get(surface, "presets/reporting")

    assert [preset["name"] for preset in listed] == list(PRESETS)
    assert one["events"] == ["reporting.report.ready"]
    assert set(one["bundle"]) == {"rules", "topics", "templates"}
    assert one["examples"][1]["gives"] == [{"rule": "reporting-linked", "recipient": "user-1", "channel": "email"}]


@pytest.mark.parametrize("name", PRESETS)
async def test_every_preset_can_be_installed_and_installing_it_again_changes_nothing(surface: Surface, name: str) -> None:
    preset = PRESETS[name]
    tried = (await install(surface, name, dry_run="true")).json()
    before = await get(surface, "setup")
    first = (await install(surface, name)).json()
    after = await get(surface, "setup")
    again = (await install(surface, name)).json()

    assert (before["rules"], before["templates"]) == ({}, [])
    assert {**first, "dry_run": True} == tried
    assert first["changed"]
    assert names(first, "created") >= {("rule", rule) for rule in preset.rules} | {("topic", topic) for topic in preset.topics}
    assert (after["rules"], after["topics"]) == (preset.rules, preset.topics)
    assert len(after["templates"]) == len(preset.templates)
    assert (again["changed"], again["created"], again["updated"], again["kept"]) == (False, [], [], [])
    assert surface.dispatch.changes == [ACME]


async def test_presets_lie_beside_each_other(surface: Surface) -> None:
    for name in PRESETS:
        assert (await install(surface, name)).status_code == 200

    assert len((await get(surface, "setup"))["rules"]) == sum(len(preset.rules) for preset in PRESETS.values())


async def test_what_the_organization_changed_is_overwritten_only_when_asked_for(surface: Surface) -> None:
    await install(surface, "payments")
    ours = {**PRESETS["payments"].rules["payments-refund"], "enabled": False}
    headers = await surface.authorization()
    assert (await surface.client.put(f"{BASE}/rules/payments-refund", json=ours, headers=headers)).status_code == 200

    left = (await install(surface, "payments")).json()
    kept = (await get(surface, "setup"))["rules"]["payments-refund"]
    replaced = (await install(surface, "payments", overwrite="true")).json()

    assert (left["changed"], left["kept"]) == (False, [{"kind": "rule", "name": "payments-refund"}])
    assert kept == ours
    assert names(replaced, "updated") == {("rule", "payments-refund")}
    assert (await get(surface, "setup"))["rules"] == PRESETS["payments"].rules


async def test_what_is_no_preset_and_what_is_no_answer_are_refused(surface: Surface) -> None:
    assert_problem(await install(surface, "weddings"), 404, "preset_not_found")
    assert (await install(surface, "payments", dry_run="perhaps")).status_code == 400
    assert (await install(surface, "payments", force="true")).status_code == 400
    reader = await surface.authorization("acme", Scope.SETUP_READ)
    assert (await surface.client.post(f"{BASE}/presets/payments/install", headers=reader)).status_code == 403


async def test_a_preset_is_installed_from_a_terminal(
    surface: Surface, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def run(*arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = await trio.to_thread.run_sync(main, ["presets", *arguments])
        return (status, *capsys.readouterr())

    url = f"http://127.0.0.1:{surface.port}"
    assert await run("install", "acme", "payments", "--url", url) == (
        1,
        "",
        "Error: set API_KEY to an API key with the scope setup:write\n",
    )
    monkeypatch.setenv("API_KEY", await surface.new_key("acme", Scope.SETUP_WRITE))
    status, listed, _ = await run("list")
    assert (status, [line.split()[0] for line in listed.splitlines()]) == (0, ["NAME", *PRESETS])
    status, told, _ = await run("install", "acme", "payments", "--url", url, "--dry-run")
    assert (status, len((await get(surface, "setup"))["rules"])) == (0, 0)
    assert "+ template payments-refund push pt-BR" in told.splitlines()
    assert (await run("install", "acme", "payments", "--url", url))[1] == told
    ours = {**PRESETS["payments"].topics["payments-refunds"], "title": "Money back"}
    await surface.client.put(f"{BASE}/topics/payments-refunds", json=ours, headers=await surface.authorization())
    status, told, remark = await run("install", "acme", "payments", "--url", url)
    assert "! topic payments-refunds" in told.splitlines()
    assert "--overwrite" in remark
    assert (await run("install", "other", "payments", "--url", url))[0] == 1
    assert "no dispatcher answers" in (await run("install", "acme", "payments", "--url", "http://127.0.0.1:1"))[2]
