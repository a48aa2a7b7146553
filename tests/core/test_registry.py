from __future__ import annotations

import pytest

from dispatcher.providers.registry import REGISTRY


def test_providers_are_found_by_the_name_they_give_themselves() -> None:
    assert all(name == provider.name for name, provider in REGISTRY.items())


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_every_provider_serves_a_channel_and_refuses_an_empty_configuration(name: str) -> None:
    provider = REGISTRY[name]

    assert provider.channels
    # Settings may all have defaults, and some servers ask for no login.
    assert provider.credentials_problems({}) or provider.settings_problems({})
