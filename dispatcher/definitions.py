"""Definitions: what an organization has set up, each a named JSON document of one kind.

A kind's module checks a document and makes its record of it, with every fault at once. Invariant: what is stored as a definition
was accepted by its kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from attrs import field, frozen


class Kind(StrEnum):
    """The kinds, by what they are called in addresses, files and the store."""

    RULE = "rule"
    TOPIC = "topic"
    LAYOUT = "layout"
    CATALOGUE = "catalogue"
    POLICY = "policy"


POLICY_NAME = "default"
"""An organization has one policy, of this name."""


@frozen
class Definition:
    """One stored document. ``revision`` counts its changes from 1."""

    kind: Kind
    name: str
    body: Mapping[str, Any] = field(repr=False)
    revision: int = 1
