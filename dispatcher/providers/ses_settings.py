"""What a configuration of SES must look like: its settings and credentials, checked when they are stored.

The region decides which host is spoken to and is part of every signature, so there is no default for it. Invariant: a problem
names a field and never repeats a value.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, Final

from dispatcher.http_message import Origin
from dispatcher.problems import Problem
from dispatcher.providers.inquiry import unknown_problems
from dispatcher.providers.provider import COMMON_SETTINGS, common_problems, invalid, missing, unknown_fields

ENTRIES_MAX: Final = 50
"""Destinations of one SendBulkEmail."""
TAGS_MAX: Final = 20
"""Tags of one's own. SES takes 50 with each mail, and two are ours."""
TOPICS_MAX: Final = 10
OWN_TAGS: Final = frozenset({"notification_id", "organization_id"})
"""Tags that correlate what comes back."""

TAG: Final = re.compile(r"[A-Za-z0-9_-]{1,256}")
"""What SES allows in the name and in the value of a tag."""
TOPIC_ARN: Final = re.compile(r"arn:aws(?:-cn|-us-gov)?:sns:[a-z0-9-]{5,32}:(?P<account>[0-9]{12}):[A-Za-z0-9_-]{1,256}")

_REGION = re.compile(r"[a-z]{2}(?:-[a-z]{2,16}){1,3}-[0-9]{1,2}")
_ADDRESS = re.compile(r"[!-~]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}[A-Za-z0-9])?")
_NOT_IN_ADDRESS = frozenset('<>()[]\\,;:"@')
_NAME = re.compile(r"[^\x00-\x1f\x7f\u2028\u2029\ud800-\udfff]{1,128}")
_CONFIGURATION_SET = re.compile(r"[A-Za-z0-9_-]{1,64}")
_ACCOUNT = re.compile(r"[0-9]{12}")
_KEY_ID = re.compile(r"[A-Za-z0-9_]{16,128}")
_SECRET = re.compile(r"[!-~]{16,256}")
_TOKEN = re.compile(r"[!-~]{1,8192}")
_SETTINGS = (
    COMMON_SETTINGS
    | {"on_unknown"}  # and no key_retention_s: no key is sent that anybody could honour
    | {"region", "from_email", "from_name", "reply_to", "configuration_set", "tags", "batch_max", "sns_topic_arn", "account_id"}
)


def hosts(region: str) -> tuple[Origin, ...]:
    """SES's own hosts in a region; the first is the default, the second the one with validated cryptography."""
    domain = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    return (Origin("https", f"email.{region}.{domain}", 443), Origin("https", f"email-fips.{region}.{domain}", 443))


def settings_problems(settings: Mapping[str, Any], origins_extra: Collection[str] = ()) -> list[Problem]:
    """What is wrong with the settings of a configuration."""
    problems = unknown_fields(settings, _SETTINGS, "/settings")
    region = settings.get("region")
    own = map(str, hosts(str(region))) if _matches(_REGION, region) else ()
    problems += common_problems(settings, {*own, *origins_extra})
    problems += unknown_problems(settings, askable=False)
    if region is None:
        problems.append(missing("/settings/region", "the AWS region of the account, for example eu-central-1"))
    elif not _matches(_REGION, region):
        problems.append(invalid("/settings/region", "must be the name of an AWS region, for example eu-central-1"))
    if settings.get("from_email") is None:
        problems.append(missing("/settings/from_email", "the address mails are sent from, verified in the region"))
    for name in ("from_email", "reply_to"):
        if settings.get(name) is not None and not _is_address(settings[name]):
            problems.append(invalid(f"/settings/{name}", "must be one email address of ASCII characters without a name"))
    for name, pattern, rule in (
        ("from_name", _NAME, "must be 1 to 128 characters without line break"),
        ("configuration_set", _CONFIGURATION_SET, "must be 1 to 64 letters, digits, - and _"),
        ("account_id", _ACCOUNT, "must be the 12 digits of an AWS account"),
    ):
        if settings.get(name) is not None and not _matches(pattern, settings[name]):
            problems.append(invalid(f"/settings/{name}", rule))
    if settings.get("tags") is not None and not _are_tags(settings["tags"]):
        detail = f"must be an object of at most {TAGS_MAX} texts; names and values are 1 to 256 letters, digits, - and _"
        problems.append(invalid("/settings/tags", f"{detail}, and no name is one of {', '.join(sorted(OWN_TAGS))}"))
    batch_max = settings.get("batch_max")
    if batch_max is not None and (type(batch_max) is not int or not 1 <= batch_max <= ENTRIES_MAX):
        problems.append(invalid("/settings/batch_max", f"must be a whole number from 1 to {ENTRIES_MAX}"))
    if settings.get("sns_topic_arn") is not None and not _are_topics(settings["sns_topic_arn"]):
        detail = f"must be the ARN of an SNS topic, or a list of 1 to {TOPICS_MAX} of them"
        problems.append(invalid("/settings/sns_topic_arn", detail))
    return problems


def credentials_problems(credentials: Mapping[str, Any]) -> list[Problem]:
    """What is wrong with the credentials of a configuration."""
    problems = unknown_fields(credentials, {"access_key_id", "secret_access_key", "session_token"}, "/credentials")
    for name, pattern, rule in (
        ("access_key_id", _KEY_ID, "must be 16 to 128 letters and digits"),
        ("secret_access_key", _SECRET, "must be 16 to 256 printable ASCII characters without blanks"),
        ("session_token", _TOKEN, "must be 1 to 8192 printable ASCII characters without blanks"),
    ):
        if credentials.get(name) is not None:
            if not _matches(pattern, credentials[name]):
                problems.append(invalid(f"/credentials/{name}", rule))
        elif name != "session_token":
            problems.append(missing(f"/credentials/{name}", "of an AWS access key that may send mail"))
    return problems


def topics_of(settings: Mapping[str, Any]) -> Collection[str]:
    """The topics whose reports are believed: none unless settings name one."""
    given = settings.get("sns_topic_arn")
    return (given,) if isinstance(given, str) else given or ()


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _is_address(value: object) -> bool:
    return _matches(_ADDRESS, value) and _NOT_IN_ADDRESS.isdisjoint(str(value).rpartition("@")[0])


def _are_tags(value: object) -> bool:
    return (
        isinstance(value, dict)
        and len(value) <= TAGS_MAX
        and all(_matches(TAG, name) and _matches(TAG, text) for name, text in value.items())
        and OWN_TAGS.isdisjoint(value)
    )


def _are_topics(value: object) -> bool:
    topics = value if isinstance(value, list) else [value]
    return 1 <= len(topics) <= TOPICS_MAX and all(_matches(TOPIC_ARN, topic) for topic in topics)
