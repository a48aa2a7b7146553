from __future__ import annotations

from typing import Any

import pytest

from dispatcher_sandbox.behaviour import Behaviour, Outage, changed


def test_the_default_answers_everything_correctly_and_at_once() -> None:
    behaviour = Behaviour()

    assert (behaviour.latency_s, behaviour.error_mix, behaviour.drop_after_accept) == (0, {}, 0)
    assert behaviour.outage is Outage.NONE
    assert not behaviour.honour_idempotency_keys


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"latency_s": -1}, "latency_s"),
        ({"latency_s": "1"}, "latency_s"),
        ({"latency_s": True}, "latency_s"),
        ({"latency_s": float("nan")}, "latency_s"),
        ({"slow_share": 1.5}, "slow_share"),
        ({"drop_after_accept": 2}, "drop_after_accept"),
        ({"error_mix": [503]}, "error_mix"),
        ({"error_mix": {200: 0.5}}, "error_mix"),
        ({"error_mix": {"many": 0.5}}, "error_mix"),
        ({"error_mix": {503: 1.5}}, "error_mix"),
        ({"error_mix": {503: True}}, "error_mix"),
        ({"rate_limit_per_s": 0}, "rate_limit_per_s"),
        ({"rate_limit_per_s": 0.5}, "widen the window"),
        ({"rate_window_s": 0}, "rate_window_s"),
        ({"rate_limit_headers": 1}, "rate_limit_headers"),
        ({"outage": "tuesday"}, "outage"),
        ({"honour_idempotency_keys": "yes"}, "honour_idempotency_keys"),
        ({"sender_domains": "example.org"}, "sender_domains"),
        ({"sender_domains": [1]}, "sender_domains"),
        ({"seed": 1.5}, "seed"),
        ({"error_mix": {503: 0.6}, "drop_after_accept": 0.5}, "add up"),
        ({"slow_share": 0.6, "drop_after_accept": 0.5}, "add up"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Behaviour(**settings)


@pytest.mark.parametrize(
    ("given", "meant"),
    [(True, Outage.UNAVAILABLE), (False, Outage.NONE), ("close", Outage.CLOSE), (Outage.SILENT, Outage.SILENT)],
)
def test_an_outage_is_a_kind_or_just_yes_or_no(given: Any, meant: Outage) -> None:
    assert Behaviour(outage=given).outage is meant


def test_a_slower_rate_than_one_a_window_needs_a_wider_window() -> None:
    assert Behaviour(rate_limit_per_s=0.5, rate_window_s=2).rate_limit_per_s == 0.5


def test_a_behaviour_survives_the_way_through_its_document() -> None:
    behaviour = Behaviour(error_mix={503: 0.25, 429: 0.25}, outage=Outage.CLOSE, sender_domains=("Example.ORG",), seed=7)

    assert behaviour.document()["error_mix"] == {"503": 0.25, "429": 0.25}
    assert changed(Behaviour(), behaviour.document()) == behaviour


def test_a_change_keeps_what_it_does_not_name() -> None:
    assert changed(Behaviour(latency_s=2, slow_s=3), {"latency_s": 1}) == Behaviour(latency_s=1, slow_s=3)


@pytest.mark.parametrize(
    ("document", "named"), [({"latency": 1}, "latency"), ([], "JSON object"), ({"latency_s": None}, "latency_s")]
)
def test_a_document_that_is_no_behaviour_is_refused_by_name(document: Any, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        changed(Behaviour(), document)
