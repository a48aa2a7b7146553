"""The rules of a mail about its rarer settings: unsubscribe groups, pools, sections, mail settings, tracking."""

from __future__ import annotations

from typing import Any

from dispatcher_sandbox.sendgrid.faults import Fault, at, is_a

GROUPS_TO_DISPLAY_MAX = 25
POOL_NAME_LENGTH_MIN = 2
POOL_NAME_LENGTH_MAX = 64

MAIL_SETTINGS = (
    "bcc", "bypass_list_management", "bypass_spam_management", "bypass_bounce_management", "bypass_unsubscribe_management",
    "footer", "sandbox_mode", "spam_check",
)  # fmt: skip
TRACKING_SETTINGS = ("click_tracking", "open_tracking", "subscription_tracking", "ganalytics")


def check_asm(asm: object, faults: list[Fault]) -> None:
    """Unsubscribe groups."""
    if type(asm) is not dict:
        is_a(dict, asm, "asm", faults)
        return
    if type(asm.get("group_id")) is not int:
        faults.append(at("asm.group_id", "The ASM group ID must be an integer."))
    if "groups_to_display" not in asm:
        return
    shown = asm["groups_to_display"]
    if type(shown) is not list or not all(type(group) is int for group in shown):
        faults.append(at("asm.groups_to_display", "The ASM Group IDs to display must be an array of integers."))
    elif len(shown) > GROUPS_TO_DISPLAY_MAX:
        message = f"There is a limit of {GROUPS_TO_DISPLAY_MAX} unsubscribe groups that can be displayed at a time."
        faults.append(at("asm.groups_to_display", message))


def check_pool_name(name: object, faults: list[Fault]) -> None:
    """The name of an IP pool."""
    if type(name) is not str:
        is_a(str, name, "ip_pool_name", faults)
    elif not POOL_NAME_LENGTH_MIN <= len(name) <= POOL_NAME_LENGTH_MAX:
        message = f"The name of your IP pool must have from {POOL_NAME_LENGTH_MIN} to {POOL_NAME_LENGTH_MAX} characters."
        faults.append(at("ip_pool_name", message))


def check_sections(sections: object, faults: list[Fault]) -> None:
    """Text blocks of legacy templates."""
    if type(sections) is not dict:
        is_a(dict, sections, "sections", faults)
    elif not all(type(text) is str for text in sections.values()):
        faults.append(at("sections", "The section values must be strings."))


def check_switches(settings: object, field: str, names: tuple[str, ...], faults: list[Fault]) -> None:
    """A group of settings, each an object with a boolean ``enable``."""
    if type(settings) is not dict:
        is_a(dict, settings, field, faults)
        return
    for name in names:
        if name not in settings:
            continue
        setting = settings[name]
        if type(setting) is not dict:
            is_a(dict, setting, f"{field}.{name}", faults)
        elif "enable" in setting and type(setting["enable"]) is not bool:
            faults.append(at(f"{field}.{name}.enable", f"The {name.replace('_', ' ')} enable param should be a boolean value."))


def is_sandboxed(mail: dict[str, Any]) -> bool:
    """Whether a mail without faults asks for validation only."""
    return mail.get("mail_settings", {}).get("sandbox_mode", {}).get("enable") is True
