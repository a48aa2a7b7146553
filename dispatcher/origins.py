"""URLs of providers, read once into the origin and path that a request is made of.

A provider's ``base_url`` comes from an organization's settings, so it decides where this process connects to: only the provider's
own hosts and the origins that whoever runs the dispatcher listed may be named. Invariant: nothing here repeats a URL in an
error, because a URL may hold a password.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from attrs import frozen

from dispatcher.http_message import Origin
from dispatcher.smtp_message import SMTP_PORTS

_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[a-z0-9]([a-z0-9_.-]{0,251}[a-z0-9])?")
_HOST_IN_BRACKETS = re.compile(r"[0-9a-f.]*:[0-9a-f:.]+")
_PATH = re.compile(r"(/[A-Za-z0-9._~!$&'()*+,;=:@%-]*)*")


@frozen
class BaseUrl:
    """Where a provider's paths hang: ``path`` is empty, or starts with a slash and does not end with one."""

    origin: Origin
    path: str

    def target(self, path: str) -> bytes:
        """The request target of a path that starts with a slash."""
        return (self.path + path).encode("ascii")


def parse_base_url(url: str) -> BaseUrl | None:
    """Read an ``http`` or ``https`` URL without user, query and fragment; None for anything else."""
    return _parse(url, _PORTS)


def _parse(url: str, ports: Mapping[str, int]) -> BaseUrl | None:
    if not (url.isascii() and url.isprintable()) or " " in url or "?" in url or "#" in url:
        return None
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    host = (parts.hostname or "").lower()
    form = _HOST_IN_BRACKETS if "[" in parts.netloc else _HOST
    if parts.scheme not in ports or "@" in parts.netloc or form.fullmatch(host) is None or port == 0:
        return None
    path = parts.path.rstrip("/")
    if _PATH.fullmatch(path) is None:
        return None
    return BaseUrl(Origin(parts.scheme, host, ports[parts.scheme] if port is None else port), path)


def parse_origin(url: str) -> Origin | None:
    """Read a URL that names an origin only, for example ``http://127.0.0.1:8025`` or ``smtps://mail.example.org``; None for
    anything else.
    """
    base = _parse(url, _PORTS | SMTP_PORTS)
    return None if base is None or base.path else base.origin
