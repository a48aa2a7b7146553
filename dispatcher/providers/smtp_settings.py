"""What an SMTP configuration must look like: checked when it is stored, and again when it is bound.

``host`` decides where this process connects to, with credentials: only origins that whoever runs the dispatcher listed may be
named, and there is no server that everybody may use.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Mapping
from typing import Any, Final

from dispatcher.http_message import Origin
from dispatcher.origins import parse_origin
from dispatcher.problems import Problem
from dispatcher.providers.inquiry import UNKNOWN_SETTINGS, unknown_problems
from dispatcher.providers.provider import COMMON_SETTINGS, common_problems, invalid, missing, unknown_fields
from dispatcher.providers.smtp_mail import mailbox_of
from dispatcher.smtp_message import SMTP_PLAIN, SMTP_PORTS, SMTP_STARTTLS, SMTP_TLS

SCHEMES: Final = {"starttls": SMTP_STARTTLS, "tls": SMTP_TLS, "none": SMTP_PLAIN}
"""By ``security``; the first is the default."""
BATCH_MAX_MAX: Final = 100
"""RFC 5321 has every server take as many recipients at least."""

_NAME = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029]{1,255}")
_SECRET = re.compile(r"[^\x00-\x1f\x7f]{1,512}")
_OWN = {"host", "port", "security", "from_email", "from_name", "reply_to", "envelope_from", "batch_max"}
_SETTINGS = (COMMON_SETTINGS | UNKNOWN_SETTINGS | _OWN) - {"base_url", "key_retention_s"}
"""SMTP has no keys that anybody could honour."""


def origin_of(settings: Mapping[str, Any]) -> Origin | None:
    """Where settings lead; None when that can not be told."""
    host, security, port = settings.get("host"), settings.get("security", "starttls"), settings.get("port")
    if not isinstance(host, str) or security not in tuple(SCHEMES):
        return None
    scheme = SCHEMES[security]
    if port is not None and not (type(port) is int and 1 <= port <= 65_535):
        return None
    in_url = f"[{host}]" if ":" in host and not host.startswith("[") else host
    return parse_origin(f"{scheme}://{in_url}:{SMTP_PORTS[scheme] if port is None else port}")


def settings_problems(settings: Mapping[str, Any], origins_extra: Collection[str] = ()) -> list[Problem]:
    """What is wrong with the settings of a configuration."""
    problems = unknown_fields(settings, _SETTINGS, "/settings")
    problems += common_problems({name: value for name, value in settings.items() if name != "base_url"}, ())
    problems += unknown_problems(settings, askable=False)
    problems += _server_problems(settings, origins_extra)
    if settings.get("from_email") is None:
        problems.append(missing("/settings/from_email", "the address that mails are sent from"))
    for name in ("from_email", "reply_to", "envelope_from"):
        value = settings.get(name)
        mailbox = mailbox_of(value) if isinstance(value, str) else None
        if value is not None and (mailbox is None or mailbox.utf8):
            problems.append(invalid(f"/settings/{name}", "must be one email address without a name, ASCII before the @"))
    from_name = settings.get("from_name")
    if from_name is not None and not _matches(_NAME, from_name):
        problems.append(invalid("/settings/from_name", "must be 1 to 255 characters without line break"))
    batch_max = settings.get("batch_max")
    if batch_max is not None and not (type(batch_max) is int and 1 <= batch_max <= BATCH_MAX_MAX):
        problems.append(invalid("/settings/batch_max", f"must be a whole number from 1 to {BATCH_MAX_MAX}"))
    return problems


def credentials_problems(credentials: Mapping[str, Any]) -> list[Problem]:
    """What is wrong with the credentials of a configuration. None at all are right for a server that asks for none."""
    problems = unknown_fields(credentials, {"username", "password"}, "/credentials")
    for name, other in (("username", "password"), ("password", "username")):
        value = credentials.get(name)
        if value is None and credentials.get(other) is not None:
            problems.append(missing(f"/credentials/{name}", f"{other} means nothing without it"))
        elif value is not None and not _matches(_SECRET, value):
            problems.append(invalid(f"/credentials/{name}", "must be 1 to 512 characters without control characters"))
    return problems


def _server_problems(settings: Mapping[str, Any], origins_extra: Collection[str]) -> list[Problem]:
    problems = []
    host, port, security = settings.get("host"), settings.get("port"), settings.get("security", "starttls")
    if security not in tuple(SCHEMES):
        problems.append(invalid("/settings/security", "must be one of " + ", ".join(SCHEMES)))
    if port is not None and not (type(port) is int and 1 <= port <= 65_535):
        problems.append(invalid("/settings/port", "must be a whole number from 1 to 65535"))
    if host is None:
        problems.append(missing("/settings/host", "the name or address of a mail submission server"))
        return problems
    origin = origin_of(settings)
    if origin is None:
        if not problems:
            problems.append(invalid("/settings/host", "must be a host name or an address, without port"))
    elif security == "none" and not _is_loopback(origin.host):
        problems.append(invalid("/settings/security", "may be none for this very machine only: a loopback address, or localhost"))
    elif str(origin) not in origins_extra:
        problems.append(invalid("/settings/host", "names a server that is not allowed here", "host_not_allowed"))
    return problems


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    if not isinstance(value, str) or pattern.fullmatch(value) is None:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
