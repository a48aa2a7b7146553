from __future__ import annotations

from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.keys import Keys, shard_of
from dispatcher.model import Channel, OrganizationId

ACME = OrganizationId("acme")
ORGANIZATIONS = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,63}", fullmatch=True).map(OrganizationId)


def names(keys: Keys, organization_id: OrganizationId) -> list[str]:
    return [
        keys.queue(organization_id),
        keys.queue_bulk(organization_id),
        keys.turns(organization_id),
        keys.inflight(organization_id),
        keys.delayed(organization_id),
        *(keys.parked(organization_id, channel) for channel in Channel),
        *(keys.rate(organization_id, channel) for channel in Channel),
        *(keys.provider(organization_id, channel) for channel in Channel),
        keys.events(organization_id),
        keys.topic(organization_id),
    ]


def test_the_names_are_those_that_were_promised() -> None:
    keys = Keys()

    assert keys.queue(ACME) == "notifications:queue:acme"
    assert keys.queue_bulk(ACME) == "notifications:queue:acme:bulk"
    assert keys.turns(ACME) == "notifications:turns:acme"
    assert keys.inflight(ACME) == "notifications:inflight:acme"
    assert keys.delayed(ACME) == "notifications:delayed:acme"
    assert keys.parked(ACME, Channel.SMS) == "notifications:parked:acme:sms"
    assert keys.rate(ACME, Channel.EMAIL) == "notifications:rate:acme:email"
    assert keys.provider(ACME, Channel.EMAIL) == "notifications:provider:acme:email"
    assert keys.events(ACME) == "notifications:events:acme"
    assert keys.topic(ACME) == "notifications:org:acme"
    assert keys.active(3) == "notifications:active:3"
    assert keys.wake(3) == "notifications:wake:3"


def test_on_a_cluster_all_keys_of_an_organization_share_a_hash_tag() -> None:
    for plain, tagged in zip(names(Keys(), ACME), names(Keys(cluster=True), ACME), strict=True):
        assert tagged == plain.replace("acme", "{acme}")


@given(st.lists(ORGANIZATIONS, min_size=2, max_size=2, unique=True), st.booleans())
def test_no_two_names_are_the_same(organizations: list[OrganizationId], cluster: bool) -> None:
    keys = Keys(cluster=cluster)
    everything = [name for organization_id in organizations for name in names(keys, organization_id)]

    assert len(set(everything)) == len(everything)


@given(ORGANIZATIONS, st.booleans())
def test_a_topic_tells_its_organization(organization_id: OrganizationId, cluster: bool) -> None:
    keys = Keys(cluster=cluster)

    assert keys.topic_organization(keys.topic(organization_id)) == organization_id


@pytest.mark.parametrize("topic", ["", "notifications:org:", "notifications:wake:3", "notifications:org", "x" * 30])
@pytest.mark.parametrize("cluster", [False, True])
def test_another_name_is_not_a_topic(topic: str, cluster: bool) -> None:
    with pytest.raises(ValueError, match="not the topic"):
        Keys(cluster=cluster).topic_organization(topic)


@given(ORGANIZATIONS, st.integers(1, 4096))
def test_a_shard_is_one_of_them_and_the_same_in_every_process(organization_id: OrganizationId, shards: int) -> None:
    assert shard_of(organization_id, shards) == crc32(organization_id.encode()) % shards < shards


def test_shards_never_move_between_versions() -> None:
    assert [shard_of(OrganizationId(name), 16) for name in ("acme", "globex", "initech")] == [14, 10, 0]
