"""The other end: a dispatcher's HTTP API, where it is about set-ups. Answers are values, all else is an exception."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final
from urllib.parse import quote

import httpx
import orjson
from attrs import field, frozen

DEADLINE_S: Final = 60.0
"""Of one request: a whole set-up is compiled before it is answered."""

_MOVED: Final = 412
_INVALID: Final = frozenset({409, 422})


class Failed(Exception):
    """There is no answer to work with. The text says why, for the user."""


class Moved(Failed):
    """The set-up is not the one that was seen any more."""


@frozen
class Refusal:
    """Faults of a document: pointer and what is wrong there, each."""

    faults: tuple[tuple[str, str], ...]


@frozen
class Standing:
    """What there is, in some sections, and the tag of the whole."""

    document: Mapping[str, Any]
    tag: str
    default_locale: str


@frozen
class Remote:
    """The set-up of one organization at one address."""

    url: str
    organization_id: str
    key: str = field(repr=False)

    def read(self, sections: Collection[str]) -> Standing:
        """These sections as they stand. Raises Failed."""
        answer = self._ask("GET", "")
        if answer.status_code != 200:
            raise self._failed(answer)
        document = answer.json()
        held = {section: document[section] for section in sections}
        return Standing(held, answer.headers["etag"], document["default_locale"])

    def push(self, document: Mapping[str, Any], tag: str, *, dry_run: bool) -> Mapping[str, Any] | Refusal:
        """Hand a document in, onto what has this tag: what has changed, or would. Raises Failed, of which Moved is one."""
        answer = self._ask("POST", "?dry_run=true" if dry_run else "", document, {"if-match": tag})
        if answer.status_code == 200:
            report: Mapping[str, Any] = answer.json()
            return report
        if answer.status_code in _INVALID:
            problem = answer.json()
            return Refusal(tuple((each.get("pointer", ""), each["detail"]) for each in problem.get("errors", [problem])))
        raise self._failed(answer)

    def _ask(self, method: str, query: str, document: object = None, headers: Mapping[str, str] | None = None) -> httpx.Response:
        address = f"{self.url.rstrip('/')}/v1/orgs/{quote(self.organization_id, safe='')}/setup{query}"
        authorized = {"authorization": f"Bearer {self.key}", "content-type": "application/json", **(headers or {})}
        content = None if document is None else orjson.dumps(document)
        try:
            return httpx.request(method, address, content=content, headers=authorized, timeout=DEADLINE_S)
        except httpx.TimeoutException:
            raise Failed(f"{self.url} did not answer within {DEADLINE_S:g} s") from None
        except httpx.HTTPError as error:
            raise Failed(f"nobody serves at {self.url}: {error}") from None

    def _failed(self, answer: httpx.Response) -> Failed:
        if answer.headers.get("content-type") != "application/problem+json":
            return Failed(f"{self.url} does not answer as a dispatcher does (status {answer.status_code})")
        kind = Moved if answer.status_code == _MOVED else Failed
        return kind(answer.json()["detail"])
