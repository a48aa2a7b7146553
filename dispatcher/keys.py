"""The names of everything in Redis. No other module spells one.

``{org}`` is the organization's id, on a cluster wrapped in braces so that all its keys share a hash slot.

======================================= ============ ==================================================================
``notifications:queue:{org}``            list         ids ready to be claimed; ``…:bulk`` is the lane for bulk traffic
``notifications:turns:{org}``            hash         how many ids were claimed while both lanes waited, by whose turn it is
``notifications:inflight:{org}``         sorted set   claimed ids by lease deadline
``notifications:delayed:{org}``          sorted set   ids by the time of their next attempt
``notifications:parked:{org}:{lane}``    sorted set   ids that wait for a blocked channel or audience, oldest first
``notifications:rate:{org}:{name}``      counter      what was leased of the quota in its present window, for which account
``notifications:provider:{org}:{name}``  hash         tokens, pauses, breaker and pace of a configuration, never credentials
``notifications:events:{org}``           stream       replay window of the topic
``notifications:org:{org}``              topic        created, delivered, failed
``notifications:active:{shard}``         sorted set   organizations with work, by the time it is due
``notifications:wake:{shard}``           topic        hint that the sorted set above changed
``notifications:shards``                 topic        hint that shards were handed over, or somebody joined to own some
======================================= ============ ==================================================================

``{lane}`` is a channel, or one audience of it (``push:apple``). ``{name}`` is the channel for its best configuration, and for
each further one the channel and the configuration's id (``dispatcher.channel_memory.record_names``).

Invariant: ids, counters and states only. No recipient, no payload and no secret is ever a key or a value.
"""

from __future__ import annotations

from zlib import crc32

from attrs import field, frozen

from dispatcher.model import Lane, OrganizationId

SHARDS_TOPIC = "notifications:shards"
"""Every process listens here for hand-overs."""
_TOPIC_PREFIX = "notifications:org:"


@frozen
class Keys:
    """Builds the names. ``cluster`` wraps the organization as a hash tag."""

    cluster: bool = False
    _open: str = field(init=False, repr=False, eq=False)
    _close: str = field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "_open", "{" if self.cluster else "")
        object.__setattr__(self, "_close", "}" if self.cluster else "")

    def queue(self, organization_id: OrganizationId) -> str:
        """The list of ids ready to be claimed."""
        return f"notifications:queue:{self._open}{organization_id}{self._close}"

    def queue_bulk(self, organization_id: OrganizationId) -> str:
        """The same for bulk traffic: all of a claim when the other lane is empty, one in ten otherwise."""
        return f"notifications:queue:{self._open}{organization_id}{self._close}:bulk"

    def turns(self, organization_id: OrganizationId) -> str:
        """The hash of counts by which bulk gets its one in ten, whatever the sizes of claims."""
        return f"notifications:turns:{self._open}{organization_id}{self._close}"

    def inflight(self, organization_id: OrganizationId) -> str:
        """The sorted set of claimed ids, scored by lease deadline."""
        return f"notifications:inflight:{self._open}{organization_id}{self._close}"

    def delayed(self, organization_id: OrganizationId) -> str:
        """The sorted set of ids that wait for their next attempt."""
        return f"notifications:delayed:{self._open}{organization_id}{self._close}"

    def parked(self, organization_id: OrganizationId, lane: Lane) -> str:
        """The sorted set of ids that wait for a blocked lane, all scored 0 so that they stand in the order of their names."""
        return f"notifications:parked:{self._open}{organization_id}{self._close}:{lane}"

    def rate(self, organization_id: OrganizationId, name: str) -> str:
        """The counter of the quota's present window; it ends with it."""
        return f"notifications:rate:{self._open}{organization_id}{self._close}:{name}"

    def provider(self, organization_id: OrganizationId, name: str) -> str:
        """The hash of what a configuration's next life should know of its limits."""
        return f"notifications:provider:{self._open}{organization_id}{self._close}:{name}"

    def events(self, organization_id: OrganizationId) -> str:
        """The stream that keeps what the topic announced lately."""
        return f"notifications:events:{self._open}{organization_id}{self._close}"

    def topic(self, organization_id: OrganizationId) -> str:
        """The topic on which the organization's events are announced."""
        return f"{_TOPIC_PREFIX}{self._open}{organization_id}{self._close}"

    def topic_organization(self, topic: str) -> OrganizationId:
        """The organization of a name that ``topic`` made. Raises ValueError for any other name."""
        organization_id = OrganizationId(topic[len(_TOPIC_PREFIX) + len(self._open) : len(topic) - len(self._close)])
        if not organization_id or self.topic(organization_id) != topic:
            raise ValueError("not the topic of an organization")
        return organization_id

    def active(self, shard: int) -> str:
        """The sorted set of organizations with work in one shard."""
        return f"notifications:active:{shard}"

    def wake(self, shard: int) -> str:
        """The topic that hints at a change of ``active``."""
        return f"notifications:wake:{shard}"


def shard_of(organization_id: OrganizationId, shards: int) -> int:
    """The shard of an organization: the same in every process and every version, unlike ``hash``."""
    return crc32(organization_id.encode()) % shards
