"""What a Twilio configuration must look like, for both channels: checked when it is stored, and again when it is bound."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from dispatcher.http_message import Origin
from dispatcher.model import Channel
from dispatcher.problems import Problem
from dispatcher.providers.inquiry import UNKNOWN_SETTINGS, unknown_problems
from dispatcher.providers.provider import COMMON_SETTINGS, common_problems, invalid, missing, unknown_fields
from dispatcher.whatsapp import is_language, is_name

HOST: Final = Origin("https", "api.twilio.com", 443)
VALIDITY_S_MAX: Final = 36_000
CALLBACK_CHARS_MAX: Final = 3_800
"""Of 4000 that Twilio takes; the rest is for what is added."""

_ACCOUNT_SID = re.compile(r"AC[0-9a-f]{32}")
_KEY_SID = re.compile(r"SK[0-9a-f]{32}")
_SERVICE_SID = re.compile(r"MG[0-9a-f]{32}")
_CONTENT_SID = re.compile(r"HX[0-9a-f]{32}")
_SECRET = re.compile(r"[\x21-\x7e]{1,512}")
_SHORT_OR_NAME = re.compile(r"[0-9]{3,8}|(?=.*[A-Za-z])[A-Za-z0-9 ]{1,11}")
_HOST_NAME = re.compile(r"[A-Za-z0-9.:-]{1,253}")
_PHONE = re.compile(r"\+[1-9][0-9]{6,14}")
_SETTINGS = COMMON_SETTINGS | UNKNOWN_SETTINGS | {"from_number", "messaging_service_sid", "status_callback_url"}
_SMS_SETTINGS = _SETTINGS | {"validity_period_s", "smart_encoded"}
_WHATSAPP_SETTINGS = _SETTINGS | {"content_sids"}
_CREDENTIALS = frozenset({"account_sid", "auth_token", "api_key_sid", "api_key_secret", "webhook_key"})


def settings_problems(settings: Mapping[str, Any], origins_extra: Collection[str], channel: Channel) -> list[Problem]:
    """What is wrong with the settings of a configuration of one channel."""
    own = _SMS_SETTINGS if channel is Channel.SMS else _WHATSAPP_SETTINGS
    problems = unknown_fields(settings, own, "/settings")
    problems += common_problems(settings, {str(HOST), *origins_extra})
    problems += unknown_problems(settings, askable=False)
    sender, service = settings.get("from_number"), settings.get("messaging_service_sid")
    if (sender is None) == (service is None):
        problems.append(missing("/settings/from_number", "needs exactly one of from_number and messaging_service_sid"))
    if sender is not None and not _is_sender(sender, channel):
        allowed = ", a short code, or a name of at most 11 letters, digits and blanks" if channel is Channel.SMS else ""
        problems.append(invalid("/settings/from_number", f"must be a phone number in E.164 form{allowed}"))
    if service is not None and not _matches(_SERVICE_SID, service):
        problems.append(invalid("/settings/messaging_service_sid", "must be MG and 32 hexadecimal digits"))
    if settings.get("status_callback_url") is not None and not _is_callback(settings["status_callback_url"]):
        problems.append(
            invalid("/settings/status_callback_url", "must be an http or https URL without fragment, its host without underscore")
        )
    if channel is Channel.SMS:
        validity_s = settings.get("validity_period_s")
        if validity_s is not None and not (type(validity_s) is int and 1 <= validity_s <= VALIDITY_S_MAX):
            problems.append(invalid("/settings/validity_period_s", f"must be a whole number from 1 to {VALIDITY_S_MAX}"))
        if not isinstance(settings.get("smart_encoded"), bool | None):
            problems.append(invalid("/settings/smart_encoded", "must be true or false"))
    elif settings.get("content_sids") is not None:
        problems += _content_sid_problems(settings["content_sids"])
    return problems


def _content_sid_problems(content_sids: object) -> list[Problem]:
    at = "/settings/content_sids"
    if not isinstance(content_sids, Mapping):
        return [invalid(at, "must map names of templates to languages and their content SIDs")]
    problems: list[Problem] = []
    for name, by_language in content_sids.items():
        if not is_name(name) or not isinstance(by_language, Mapping) or not by_language:
            return [*problems, invalid(at, "must map names of templates to languages and their content SIDs")]
        for language, sid in by_language.items():
            if not is_language(language):
                problems.append(invalid(f"{at}/{name}", "must name languages, such as en or pt_BR"))
            elif not _matches(_CONTENT_SID, sid):
                problems.append(invalid(f"{at}/{name}/{language}", "must be HX and 32 hexadecimal digits"))
    return problems


def credentials_problems(credentials: Mapping[str, Any]) -> list[Problem]:
    """What is wrong with the credentials of a configuration. A token beside an API key is for the signatures of callbacks."""
    problems = unknown_fields(credentials, _CREDENTIALS, "/credentials")
    given = {name for name in _CREDENTIALS if credentials.get(name) is not None}
    if "account_sid" not in given:
        problems.append(missing("/credentials/account_sid", "the SID of the account, AC and 32 hexadecimal digits"))
    if not given & {"auth_token", "api_key_sid", "api_key_secret"}:
        problems.append(missing("/credentials/auth_token", "the account's auth token; or api_key_sid and api_key_secret"))
    if "api_key_secret" in given and "api_key_sid" not in given:
        problems.append(missing("/credentials/api_key_sid", "the SID of the key that the secret is of"))
    if "api_key_sid" in given and "api_key_secret" not in given:
        problems.append(missing("/credentials/api_key_secret", "the secret of the key"))
    for name, pattern, words in (
        ("account_sid", _ACCOUNT_SID, "must be AC and 32 hexadecimal digits"),
        ("api_key_sid", _KEY_SID, "must be SK and 32 hexadecimal digits"),
        ("auth_token", _SECRET, "must be 1 to 512 printable ASCII characters without blanks"),
        ("api_key_secret", _SECRET, "must be 1 to 512 printable ASCII characters without blanks"),
        ("webhook_key", _SECRET, "must be 1 to 512 printable ASCII characters without blanks"),
    ):
        if name in given and not _matches(pattern, credentials[name]):
            problems.append(invalid(f"/credentials/{name}", words))
    return problems


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _is_sender(value: object, channel: Channel) -> bool:
    return _matches(_PHONE, value) or (channel is Channel.SMS and _matches(_SHORT_OR_NAME, value))


def _is_callback(value: object) -> bool:
    if not isinstance(value, str) or len(value) > CALLBACK_CHARS_MAX or not value.isascii() or not value.isprintable():
        return False
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        return False
    host = parts.hostname or ""
    return (
        parts.scheme in ("http", "https")
        and " " not in value
        and "#" not in value
        and "@" not in parts.netloc
        and port != 0
        and _HOST_NAME.fullmatch(host) is not None
    )
