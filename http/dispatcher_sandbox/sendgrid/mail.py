"""The body of ``POST /v3/mail/send``: all its rules together. Fields the rules do not know are let pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dispatcher_sandbox.sendgrid.attachments import check_attachments
from dispatcher_sandbox.sendgrid.faults import Fault, at, is_a
from dispatcher_sandbox.sendgrid.fields import (
    check_arguments,
    check_categories,
    check_content,
    check_headers,
    check_send_at,
    check_subject,
    check_template_id,
)
from dispatcher_sandbox.sendgrid.people import check_personalizations, check_reply_to, check_sender
from dispatcher_sandbox.sendgrid.settings import (
    MAIL_SETTINGS,
    TRACKING_SETTINGS,
    check_asm,
    check_pool_name,
    check_sections,
    check_switches,
)

SEND_AHEAD_S_MAX = 72 * 3600

Check = Callable[[Any, list[Fault]], object]

_ROOT: dict[str, Check] = {
    "subject": lambda value, faults: check_subject(value, "subject", faults),
    "headers": lambda value, faults: check_headers(value, "headers", faults),
    "custom_args": lambda value, faults: check_arguments(None, value, "custom_args", faults),
    "attachments": check_attachments,
    "categories": check_categories,
    "template_id": check_template_id,
    "sections": check_sections,
    "send_at": lambda value, faults: check_send_at(value, "send_at", faults),
    "batch_id": lambda value, faults: is_a(str, value, "batch_id", faults),
    "asm": check_asm,
    "ip_pool_name": check_pool_name,
    "mail_settings": lambda value, faults: check_switches(value, "mail_settings", MAIL_SETTINGS, faults),
    "tracking_settings": lambda value, faults: check_switches(value, "tracking_settings", TRACKING_SETTINGS, faults),
}
"""Fields of the root that are right or wrong by themselves."""


def faults_of(mail: object, now_s: float) -> list[Fault]:
    """Everything the real one would refuse this mail for; empty for a good one. Raises Unreadable. ``now_s`` in Unix seconds."""
    faults: list[Fault] = []
    if type(mail) is not dict:
        is_a(dict, mail, "(root)", faults)
        return faults
    check_personalizations(mail, faults)
    check_sender(mail, faults)
    check_content(mail, faults)
    if "subject" not in mail:
        _check_subjects(mail, faults)
    if "reply_to" in mail or "reply_to_list" in mail:
        check_reply_to(mail, faults)
    for name, value in mail.items():
        check = _ROOT.get(name)
        if check is not None:
            check(value, faults)
    if not faults:
        _check_times(mail, now_s, faults)
    return faults


def _check_subjects(mail: dict[str, Any], faults: list[Fault]) -> None:
    """Without a subject of the whole mail."""
    blocks = mail.get("personalizations")
    each_has = type(blocks) is list and blocks and all(type(block) is dict and block.get("subject") for block in blocks)
    if not each_has and "template_id" not in mail:
        faults.append(at("subject", "The subject is required, unless a template or every personalization defines one."))


def _check_times(mail: dict[str, Any], now_s: float, faults: list[Fault]) -> None:
    latest_s = now_s + SEND_AHEAD_S_MAX
    if mail.get("send_at", 0) > latest_s:
        faults.append(at("send_at", "Scheduling more than 72 hours in advance is forbidden."))
    for index, block in enumerate(mail["personalizations"]):
        if block.get("send_at", 0) > latest_s:
            field = f"personalizations.{index}.send_at"
            faults.append(at(field, "Scheduling more than 72 hours in advance is forbidden."))
