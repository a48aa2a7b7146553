"""The shipped presets over HTTP: which there are, and installing one for an organization.

To install one is to change the organization's set-up by what the preset brings (:mod:`dispatcher_http.setups`), all at once or
not at all. Invariant: what the organization has changed, or had under the same name before, is overwritten only when asked to.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson
from quart_trio.wrappers import TrioResponse

from actors.store import setups as store
from actors.store.api_keys import Scope
from dispatcher.bundle import Verb, digest
from dispatcher.model import OrganizationId
from dispatcher.presets import PRESETS, Preset, addition
from dispatcher.problems import Refused
from dispatcher_http import setups, wire
from dispatcher_http.problems import resource_not_found
from dispatcher_http.routing import CHANGE_DEADLINE_S, Call, Route, answer
from dispatcher_http.services import Services

_RULE = "/v1/orgs/<org>/presets"
_TOLD: Final = (Verb.CREATED, Verb.UPDATED, Verb.UNCHANGED)
_YES_NO: Final[Mapping[str, bool]] = {"true": True, "false": False}


def routes(services: Services) -> list[Route]:
    """Listing, looking at one, installing."""

    async def read_all(call: Call) -> TrioResponse:
        wire.refuse_unknown(call.args, ())
        return answer({"items": [preset.summary() for preset in PRESETS.values()]})

    async def read(call: Call) -> TrioResponse:
        wire.refuse_unknown(call.args, ())
        preset = _named(call)
        examples = [example.document() for example in preset.examples]
        return answer({**preset.summary(), "bundle": preset.bundle(), "examples": examples})

    async def install(call: Call) -> TrioResponse:
        wire.refuse_unknown(call.args, {"dry_run", "overwrite"})
        dry_run, overwrite = (
            wire.query_value(call.args, name, _yes_no, "true or false") or False for name in ("dry_run", "overwrite")
        )
        return answer(await _installed(services, call.organization_id, _named(call), dry_run=dry_run, overwrite=overwrite))

    return [
        Route("GET", _RULE, Scope.SETUP_READ, read_all),
        Route("GET", f"{_RULE}/<name>", Scope.SETUP_READ, read),
        Route("POST", f"{_RULE}/<name>/install", Scope.SETUP_WRITE, install),
    ]


async def _installed(
    services: Services, organization_id: OrganizationId, preset: Preset, *, dry_run: bool, overwrite: bool
) -> dict[str, Any]:
    """What installing it changes, or would. Decided anew when somebody changes the set-up meanwhile."""
    tries_left = setups.TRIES_MAX
    while True:
        current = await store.read(services.pool, organization_id, CHANGE_DEADLINE_S)
        document, kept = addition(preset, current, overwrite=overwrite)
        try:
            report, _ = await setups.change(services, organization_id, orjson.dumps(document), digest(current), dry_run=dry_run)
        except Refused as refused:
            tries_left -= 1
            if refused.problem.status != 412 or not tries_left:
                raise
            continue
        told = {verb.value: report[verb.value] for verb in _TOLD}
        return {"dry_run": dry_run, "changed": report["changed"], **told, Verb.KEPT.value: [key.document() for key in kept]}


def _named(call: Call) -> Preset:
    preset = PRESETS.get(call.path["name"])
    if preset is None:
        raise Refused(resource_not_found("preset"))
    return preset


def _yes_no(text: str) -> bool:
    if text not in _YES_NO:
        raise ValueError("yes or no")
    return _YES_NO[text]
