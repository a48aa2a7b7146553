from __future__ import annotations

import re
from pathlib import Path

import pytest

from dispatcher.providers.provider import COMMON_SETTINGS, Provider
from dispatcher.providers.registry import REGISTRY

PAGES = Path(__file__).parents[2] / "docs" / "providers"
SENT_A_KEY = frozenset({"sendgrid", "twilio_sms", "twilio_whatsapp", "meta_whatsapp"})
"""Providers whose requests carry our idempotency key, for whoever may honour it."""


def known_settings(provider: Provider) -> set[str]:
    """The names of all settings, out of what is said about an unknown one."""
    return _known(
        [problem.detail for problem in provider.settings_problems({"nonsense": 1}) if problem.code == "setting_unknown"]
    )


def known_credentials(provider: Provider) -> set[str]:
    return _known([p.detail for p in provider.credentials_problems({"nonsense": 1}) if p.code == "setting_unknown"])


def named_on_page(name: str) -> set[str]:
    """What stands in code's letters on the page of a provider, examples of several lines left out."""
    file = PAGES / ("web-push.md" if name == "webpush" else name.replace("_", "-") + ".md")
    page = re.sub(r"```.*?```", "", file.read_text(encoding="utf-8"), flags=re.DOTALL)
    return set(re.findall(r"`([^`\n]+)`", page))


def test_providers_are_found_by_the_name_they_give_themselves() -> None:
    assert all(name == provider.name for name, provider in REGISTRY.items())


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_every_provider_serves_a_channel_and_refuses_an_empty_configuration(name: str) -> None:
    provider = REGISTRY[name]

    assert provider.channels
    # Settings may all have defaults, and some servers ask for no login.
    assert provider.credentials_problems({}) or provider.settings_problems({})


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_how_long_a_key_is_honoured_may_be_said_where_one_is_sent_and_nowhere_else(name: str) -> None:
    """Relied on where none is sent, it would let an attempt in doubt be sent again and again."""
    assert ("key_retention_s" in known_settings(REGISTRY[name])) == (name in SENT_A_KEY)
    assert "on_unknown" in known_settings(REGISTRY[name])


@pytest.mark.parametrize("name", sorted(REGISTRY))
def test_the_page_of_a_provider_names_every_setting_and_credential(name: str) -> None:
    named = named_on_page(name)

    provider = REGISTRY[name]
    assert (known_settings(provider) | known_credentials(provider)) - named == set()
    assert known_settings(provider) >= COMMON_SETTINGS - {"base_url"}


@pytest.mark.parametrize("names", [("smtp",), ("fcm",), ("webpush",), ("meta_whatsapp",), ("twilio_sms", "twilio_whatsapp")])
def test_the_page_of_a_provider_names_every_code_that_it_explains(names: tuple[str, ...]) -> None:
    """One page leads to the other where two providers share codes. A number behind a code is the provider's, and not repeated."""
    named = set[str]().union(*(named_on_page(name) for name in names))
    explained = {code for name in names for code in REGISTRY[name].explanations if "http_" not in code}
    codes = {re.sub(r"_[0-9]+$", "", code) for code in explained}

    assert codes - named == set()


def _known(details: list[str]) -> set[str]:
    assert len(details) == 1
    return set(details[0].partition("known are ")[2].split(", "))
