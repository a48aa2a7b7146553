"""Provider configurations of an organization. Credentials go in and never come out: answers name their fields.

They are sealed here, in memory, before anything is stored, and bound to the row they belong to.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from quart_trio.wrappers import TrioResponse

from actors.prober import ProbeReport
from actors.store import providers as store
from actors.store.api_keys import Scope
from actors.store.providers import StoredProvider, sealing_context
from dispatcher import vault
from dispatcher.acceptance import recipient_rule_broken
from dispatcher.errors import ConfigError
from dispatcher.model import Channel, OrganizationId
from dispatcher.problems import Problem, Refused
from dispatcher.providers.probing import Probed
from dispatcher.providers.registry import Unbindable
from dispatcher.vault import EncryptionKeys
from dispatcher_http import wire
from dispatcher_http.problems import resource_not_found
from dispatcher_http.routing import Call, Route, announce, answer, no_content, whole_change
from dispatcher_http.services import Services

MEMBERS_MAX = 64
"""Fields of settings, and of credentials."""
BYTES_MAX = 32 * 1024
"""Of settings, and of credentials, as JSON: every organization's are kept in memory."""
PRIORITY_MAX = 1000
RECIPIENT_CHARS_MAX = 4096

_RULE = "/v1/orgs/<org>/providers"
_KEYS_MISSING = Problem(
    503,
    "encryption_keys_missing",
    "No encryption key",
    "Credentials cannot be stored because this dispatcher runs without DISPATCHER_ENCRYPTION_KEYS.",
)


def routes(services: Services) -> list[Route]:
    """Creating, reading, replacing, removing, trying out."""

    async def create(call: Call) -> TrioResponse:
        keys = _keys(services)
        faults = wire.Faults()
        fields = wire.Fields(await call.json(), faults)
        name = fields.text("provider", 64)
        channel = fields.choice("channel", Channel)
        credentials = fields.mapping("credentials", MEMBERS_MAX)
        settings, priority = _settings(fields, faults)
        _check(services, faults, name, settings, credentials, channel)
        faults.refuse_if_any()
        id = services.new_id()
        sealed = _seal(services, keys, call.organization_id, id, credentials)
        with whole_change():
            stored = await store.add(services.pool, id, call.organization_id, name, channel, sealed, settings, priority)
            await announce(services.changed(call.organization_id))
        return answer(_document(services, stored), 201, {"location": f"/v1/orgs/{call.organization_id}/providers/{id}"})

    async def read_page(call: Call) -> TrioResponse:
        wire.refuse_unknown(call.args, {"after", "page_size"})
        page = await store.read_page(services.pool, call.organization_id, wire.page_request(call.args))
        return answer(wire.page_document(page, lambda stored: _document(services, stored)))

    async def read(call: Call) -> TrioResponse:
        stored = await store.read(services.pool, call.organization_id, call.id_of("provider"))
        if stored is None:
            raise Refused(resource_not_found("provider"))
        return answer(_document(services, stored))

    async def replace(call: Call) -> TrioResponse:
        id = call.id_of("provider")
        present = await store.read(services.pool, call.organization_id, id)
        if present is None:
            raise Refused(resource_not_found("provider"))
        faults = wire.Faults()
        fields = wire.Fields(await call.json(), faults)
        for field, value in (("provider", present.provider), ("channel", present.channel)):
            if fields.value(field) not in (None, value):
                faults.add(
                    f"/{field}", "field_immutable", "This cannot be changed. Add another configuration and remove this one."
                )
        credentials = fields.optional_mapping("credentials", MEMBERS_MAX)
        settings, priority = _settings(fields, faults)
        _check(services, faults, present.provider, settings, credentials, present.channel)
        faults.refuse_if_any()
        sealed = None
        if credentials is not None:
            sealed = _seal(services, _keys(services), call.organization_id, id, credentials)
        with whole_change():
            stored = await store.replace(services.pool, call.organization_id, id, sealed, settings, priority)
            if stored is None:
                raise Refused(resource_not_found("provider"))
            await announce(services.changed(call.organization_id))
        return answer(_document(services, stored))

    async def remove(call: Call) -> TrioResponse:
        with whole_change():
            if not await store.remove(services.pool, call.organization_id, call.id_of("provider")):
                raise Refused(resource_not_found("provider"))
            await announce(services.changed(call.organization_id))
        return no_content()

    async def test(call: Call) -> TrioResponse:
        id = call.id_of("provider")
        stored = await store.read(services.pool, call.organization_id, id)
        if stored is None:
            raise Refused(resource_not_found("provider"))
        faults = wire.Faults()
        fields = wire.Fields(await call.json() if await call.has_body() else {}, faults)
        recipient = fields.optional_text("recipient", RECIPIENT_CHARS_MAX)
        fields.finish()
        if recipient is not None and (rule := recipient_rule_broken(recipient, stored.channel)) is not None:
            faults.add("/recipient", "field_invalid", f"This {rule}.")
        faults.refuse_if_any()
        try:
            report = await services.probe(call.organization_id, id, recipient)
        except ConfigError as error:
            report = ProbeReport(Probed(False, "credentials_not_opened", str(error)), 0.0)
        except Unbindable as error:
            report = ProbeReport(Probed(False, error.code, f"{error.problem.pointer}: {error.problem.detail}"), 0.0)
        if report is None:
            raise Refused(resource_not_found("provider"))
        probed = report.probed
        duration_s = round(report.duration_s, 3)
        return answer({"ok": probed.good, "code": probed.code, "detail": probed.words, "duration_s": duration_s})

    return [
        Route("POST", _RULE, Scope.PROVIDERS_WRITE, create),
        Route("POST", f"{_RULE}/<id>/test", Scope.PROVIDERS_WRITE, test),
        Route("GET", _RULE, Scope.PROVIDERS_READ, read_page),
        Route("GET", f"{_RULE}/<id>", Scope.PROVIDERS_READ, read),
        Route("PUT", f"{_RULE}/<id>", Scope.PROVIDERS_WRITE, replace),
        Route("DELETE", f"{_RULE}/<id>", Scope.PROVIDERS_WRITE, remove),
    ]


def _keys(services: Services) -> EncryptionKeys:
    if services.encryption_keys is None:
        raise Refused(_KEYS_MISSING)
    return services.encryption_keys


def _settings(fields: wire.Fields, faults: wire.Faults) -> tuple[Mapping[str, Any], int]:
    settings = fields.optional_mapping("settings", MEMBERS_MAX) or {}
    priority = fields.integer("priority", 0, PRIORITY_MAX, 0)
    fields.finish()
    if _size(settings) > BYTES_MAX:
        faults.add("/settings", "field_invalid", f"This may have at most {BYTES_MAX} bytes.")
    return settings, priority


def _check(
    services: Services,
    faults: wire.Faults,
    name: str,
    settings: Mapping[str, Any],
    credentials: Mapping[str, Any] | None,
    channel: Channel,
) -> None:
    """What only the provider knows. Asked only about what is otherwise in order."""
    if credentials is not None and _size(credentials) > BYTES_MAX:
        faults.add("/credentials", "field_invalid", f"These may have at most {BYTES_MAX} bytes.")
    if faults:
        return
    provider = services.providers.get(name)
    if provider is None:
        known = ", ".join(f"'{each}'" for each in sorted(services.providers))
        faults.add("/provider", "field_invalid", f"This must be one of {known}.")
        return
    if channel not in provider.channels:
        channels = ", ".join(f"'{each}'" for each in sorted(provider.channels))
        faults.add("/channel", "field_invalid", f"This provider serves {channels}.")
    faults.extend(provider.settings_problems(settings, services.provider_urls_extra))
    if credentials is not None:
        faults.extend(provider.credentials_problems(credentials))


def _size(value: Mapping[str, Any]) -> int:
    return len(orjson.dumps(value))


def _seal(
    services: Services, keys: EncryptionKeys, organization_id: OrganizationId, id: str, credentials: Mapping[str, Any]
) -> bytes:
    names = orjson.dumps(sorted(credentials))
    return vault.seal(keys, orjson.dumps(credentials), sealing_context(organization_id, id), services.random_bytes, names)


def _document(services: Services, stored: StoredProvider) -> dict[str, Any]:
    return {
        "id": stored.id,
        "provider": stored.provider,
        "channel": stored.channel,
        "credential_fields": _credential_fields(services, stored),
        "settings": stored.settings,
        "priority": stored.priority,
        "revision": stored.revision,
        "created_at": wire.moment(stored.created_at),
        "updated_at": wire.moment(stored.updated_at),
    }


def _credential_fields(services: Services, stored: StoredProvider) -> list[str] | None:
    """The names of the sealed fields, from the label: nothing is opened for it. None when no key here opens them."""
    keys = services.encryption_keys
    try:
        if keys is None or vault.key_id_of(stored.sealed) not in keys.ids:
            return None
        if label := vault.label_of(stored.sealed):
            names: list[str] = orjson.loads(label)
            return names
        # From before there were envelopes, and not rotated since.
        opened = vault.open_sealed(keys, stored.sealed, sealing_context(stored.organization_id, stored.id))
    except ConfigError:
        return None
    return sorted(orjson.loads(opened))
