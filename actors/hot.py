"""What fills an organization's hot cache: provider configurations bound and ready, templates compiled."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence

import orjson
from attrs import frozen

from actors.in_turns import in_turns
from actors.io.postgres import Pool
from actors.store import definitions, organizations, templates
from actors.store import providers as configurations
from actors.webhook_configs import WebhookConfig
from dispatcher.errors import ConfigError
from dispatcher.layouts import library_of
from dispatcher.messages import ProviderPolicy
from dispatcher.model import Channel, OrganizationId, ProviderConfig, Template
from dispatcher.providers.batching import Batching
from dispatcher.providers.inquiry import unknown_policy
from dispatcher.providers.provider import sharing_of
from dispatcher.providers.registry import REGISTRY, Bound, Provider, Unbindable
from dispatcher.setup import Setup
from dispatcher.template_checks import needs_library
from dispatcher.template_includes import NO_LIBRARY, Library
from dispatcher.template_sets import TemplateSet, choose_locale
from dispatcher.templates import CompiledTemplate
from dispatcher.vault import EncryptionKeys, open_sealed

logger = logging.getLogger(__name__)


@frozen
class Loaders:
    """Reads from Postgres. ``origins_extra`` are the origins that base URLs may name beside the providers' own."""

    pool: Pool
    keys: EncryptionKeys | None
    origins_extra: Collection[str]

    async def providers(self, organization_id: OrganizationId) -> Sequence[tuple[ProviderPolicy, Bound]]:
        """Every usable configuration, best first, credentials opened and bound. An unusable one is logged and left out."""
        ready: list[tuple[ProviderPolicy, Bound]] = []
        for stored in await configurations.read_all(self.pool, organization_id):
            try:
                bound = self._bind(stored)
            except (ConfigError, Unbindable, KeyError) as error:
                logger.error(
                    "organization %s: provider configuration %s can not be used: %s",
                    organization_id,
                    stored.id,
                    error if isinstance(error, ConfigError) else type(error).__name__,
                )
                continue
            limits = bound.limits
            provider, sharing = REGISTRY[stored.provider], sharing_of(stored.settings)
            unknown = unknown_policy(stored.settings, provider)
            policy = ProviderPolicy(
                config_id=stored.id,
                revision=stored.revision,
                provider=stored.provider,
                channel=stored.channel,
                rate_per_s=limits.rate_per_s,
                burst=limits.burst,
                concurrency_max=limits.concurrency_max,
                on_unknown=unknown.on_unknown,
                key_retention_s=unknown.key_retention_s,
                inquiry_lag_s=unknown.inquiry_lag_s,
                quota=limits.quota,
                quota_window_s=limits.quota_window_h * 3600.0,
                origin=str(bound.origin),
                batch_max=bound.batch_max if isinstance(bound, Batching) else 1,
                priority=stored.priority,
                weight=sharing.weight,
                audience=provider.audience,
                failover=sharing.failover,
                failover_on_unknown=sharing.failover_on_unknown,
            )
            ready.append((policy, bound))
        return ready

    async def provider(self, organization_id: OrganizationId, id: str) -> tuple[Provider, Channel, Bound] | None:
        """One configuration, bound; None when there is no such. Raises ConfigError or Unbindable when it can not be used."""
        stored = await configurations.read(self.pool, organization_id, id)
        return None if stored is None else (REGISTRY[stored.provider], stored.channel, self._bind(stored))

    async def webhook(self, organization_id: OrganizationId, id: str) -> WebhookConfig | None:
        """One configuration as its provider's reports are checked with; None when there is no such, or it is of no use.

        Anybody may name any organization here, also one that Postgres would choke on.
        """
        if not organizations.is_organization_id(organization_id):
            return None
        stored = await configurations.read(self.pool, organization_id, id)
        if stored is None or self.keys is None or stored.provider not in REGISTRY:
            return None
        source = REGISTRY[stored.provider].feedback
        if source is None:
            return None
        try:
            opened = open_sealed(self.keys, stored.sealed, configurations.sealing_context(organization_id, id))
        except ConfigError as error:
            logger.error("organization %s: reports to provider configuration %s: %s", organization_id, id, error)
            return None
        settings = stored.settings
        problems = REGISTRY[stored.provider].settings_problems(settings, self.origins_extra)
        if any(problem.pointer == "/settings/base_url" for problem in problems):
            # An origin that is not allowed any more vouches for nothing: a source may believe what lies where mails are sent to.
            settings = {name: value for name, value in settings.items() if name != "base_url"}
        return WebhookConfig(stored.provider, stored.channel, source, settings, orjson.loads(opened))

    def _bind(self, stored: configurations.StoredProvider) -> Bound:
        if self.keys is None:
            raise ConfigError("DISPATCHER_ENCRYPTION_KEYS is not set, so no credentials can be opened")
        context = configurations.sealing_context(stored.organization_id, stored.id)
        credentials = orjson.loads(open_sealed(self.keys, stored.sealed, context))
        config = ProviderConfig(
            id=stored.id,
            organization_id=stored.organization_id,
            channel=stored.channel,
            provider=stored.provider,
            settings=stored.settings,
            credentials=credentials,
            revision=stored.revision,
            priority=stored.priority,
        )
        return REGISTRY[stored.provider].bind(config, self.origins_extra)

    async def template(
        self, organization_id: OrganizationId, name: str, channel: Channel, locale: str | None
    ) -> CompiledTemplate | None:
        """The template in force for the first locale of the chain that has one. None when there is no such template."""
        stored = await templates.read_in_force(self.pool, organization_id, name, channel)
        if not stored:
            return None
        organization = await organizations.read(self.pool, organization_id)
        default = organization.default_locale if organization is not None else "en"
        by_locale = {template.locale: template for template in stored}
        chosen, _ = choose_locale(by_locale, locale, default, stored[0].locale)
        return CompiledTemplate.of(by_locale[chosen], library=await self._library(organization_id, [by_locale[chosen]]))

    async def template_set(self, organization_id: OrganizationId, name: str, channel: Channel) -> TemplateSet | None:
        """The template in force in all its locales. None when there is no such template."""
        stored = await templates.read_in_force(self.pool, organization_id, name, channel)
        if not stored:
            return None
        library = await self._library(organization_id, stored)
        return TemplateSet(
            {template.locale: CompiledTemplate.of(template, library=library) for template in stored}, stored[0].locale
        )

    async def _library(self, organization_id: OrganizationId, stored: Sequence[Template]) -> Library:
        """The organization's layouts, read only for templates that can use one."""
        if not any(map(needs_library, stored)):
            return NO_LIBRARY
        return library_of(await definitions.read_all(self.pool, organization_id))

    async def setup(self, organization_id: OrganizationId) -> Setup:
        """What the organization has set up, compiled. What can not be used is logged, by kind and name, and left out."""
        organization = await organizations.read(self.pool, organization_id)
        default = organization.default_locale if organization is not None else "en"
        setup = await in_turns(Setup.in_steps(default, await definitions.read_all(self.pool, organization_id)))
        for fault in setup.faults:
            logger.error(
                "organization %s: the %s '%s' can not be used: %s", organization_id, fault.kind, fault.name, fault.problem.code
            )
        return setup
