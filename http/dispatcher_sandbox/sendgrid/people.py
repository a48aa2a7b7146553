"""The rules of a mail about people: addresses, recipients, personalizations, sender and reply addresses."""

from __future__ import annotations

import re
from typing import Any

from dispatcher_sandbox.sendgrid.faults import Fault, at, is_a
from dispatcher_sandbox.sendgrid.fields import check_arguments, check_headers, check_send_at, check_subject, check_substitutions

RECIPIENTS_MAX = 1000
PERSONALIZATIONS_MAX = 1000
REPLY_TO_MAX = 1000

_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL = r"[^\W_](?:[^\W_]|-(?=[^.])){0,62}"
_ADDRESS = re.compile(rf"(?=.{{1,64}}@){_ATOM}(?:\.{_ATOM})*@(?=.{{1,253}}\Z)(?:{_LABEL}\.)+(?!\d+\Z)(?!.\Z){_LABEL}")
_well_formed = _ADDRESS.fullmatch

_KINDS = ("to", "cc", "bcc")
_NO_ADDRESS = "Does not contain a valid address."
_PERSONALIZATIONS = "-Personalizations-Errors"
_RECIPIENTS = "message.recipient-errors"


def is_address(text: str) -> bool:
    """Whether SendGrid would take it: an ASCII dot-atom, ``@``, and a domain of at least two labels."""
    return _well_formed(text) is not None


def domain_of(address: str) -> str:
    """The domain of a valid address, folded."""
    return address.rpartition("@")[2].lower()


def check_person(person: object, field: str, faults: list[Fault]) -> str | None:
    """An e-mail object ``{"email", "name"?}``; gives its address when that is a string."""
    if type(person) is not dict:
        is_a(dict, person, field, faults)
        return None
    if "name" in person:
        is_a(str, person["name"], f"{field}.name", faults)
    if "email" not in person:
        faults.append(at(f"{field}.email", _NO_ADDRESS))
        return None
    email = person["email"]
    if type(email) is not str:
        is_a(str, email, f"{field}.email", faults)
        return None
    if _well_formed(email) is None:
        faults.append(at(f"{field}.email", _NO_ADDRESS))
    return email


def check_sender(mail: dict[str, Any], faults: list[Fault]) -> None:
    """The root ``from``."""
    sender = mail.get("from")
    if "from" not in mail or (type(sender) is dict and "email" not in sender):
        faults.append(at("from.email", "The from object must be provided, with an email and if you like a name."))
    else:
        check_person(sender, "from", faults)


def check_personalizations(mail: dict[str, Any], faults: list[Fault]) -> None:
    """All personalizations, and what they may hold together."""
    blocks = mail.get("personalizations", [])
    if type(blocks) is not list:
        is_a(list, blocks, "personalizations", faults)
        return
    if not blocks:
        message = "The personalizations field is required and must not be empty."
        faults.append(at("personalizations", message, _PERSONALIZATIONS))
        return
    if len(blocks) > PERSONALIZATIONS_MAX:
        message = f"There may be at most {PERSONALIZATIONS_MAX} personalizations per request; you have provided {len(blocks)}."
        faults.append(at("personalizations", message, _PERSONALIZATIONS))
        return
    recipients = 0
    for index, block in enumerate(blocks):
        if is_a(dict, block, f"personalizations.{index}", faults):
            recipients += _check_recipients(block, index, faults)
            _check_details(block, f"personalizations.{index}", mail, faults)
    if recipients > RECIPIENTS_MAX:
        message = f"There may be at most {RECIPIENTS_MAX} recipients (to + cc + bcc) per request."
        faults.append(at("personalizations", message, _RECIPIENTS))


def _check_recipients(block: dict[str, Any], index: int, faults: list[Fault]) -> int:
    """to, cc and bcc of one personalization; gives the number of people in them."""
    count = 0
    by_kind: list[tuple[str, list[str]]] = []
    for kind in _KINDS:
        people = block.get(kind)
        if people is None and kind not in block:
            continue
        field = f"personalizations.{index}.{kind}"
        if type(people) is not list:
            is_a(list, people, field, faults)
            continue
        count += len(people)
        if len(people) > RECIPIENTS_MAX:
            faults.append(at(field, f"There may be at most {RECIPIENTS_MAX} recipients here."))
        else:
            by_kind.append((kind, _addresses(people, field, faults)))
    if block.get("to", []) == []:
        message = "Each personalization needs a to array with at least one e-mail object that has a valid address."
        faults.append(at(f"personalizations.{index}.to", message))
    if count > 1:
        _check_unique(index, by_kind, faults)
    return count


def _addresses(people: list[Any], field: str, faults: list[Fault]) -> list[str]:
    addresses: list[str] = []
    for index, person in enumerate(people):
        # The quick look spares nearly every recipient the careful one.
        if type(person) is dict and type(email := person.get("email")) is str and _well_formed(email):
            if len(person) == 1:
                addresses.append(email)
                continue
            name = person.get("name")
            if type(name) is str and ("," in name or ";" in name):
                faults.append(at(f"{field}.{index}.name", "A recipient's name may contain neither ';' nor ','."))
        address = check_person(person, f"{field}.{index}", faults)
        if address is not None:
            addresses.append(address)
    return addresses


def _check_unique(index: int, by_kind: list[tuple[str, list[str]]], faults: list[Fault]) -> None:
    seen: set[str] = set()
    for kind, addresses in by_kind:
        for address in addresses:
            folded = address.lower()
            if folded in seen:
                message = (
                    "Each email address in the personalization block should be unique between to, cc, and bcc. "
                    f"We found the first duplicate instance of [{address}] in the personalizations.{index}.{kind} field."
                )
                faults.append(at(f"personalizations.{index}", message, _RECIPIENTS))
                return
            seen.add(folded)


def _check_details(block: dict[str, Any], field: str, mail: dict[str, Any], faults: list[Fault]) -> None:
    """Everything of a personalization but its recipients."""
    if "subject" in block:
        check_subject(block["subject"], f"{field}.subject", faults)
    if "from" in block:
        _check_own_sender(block["from"], f"{field}.from", mail, faults)
    if "headers" in block:
        check_headers(block["headers"], f"{field}.headers", faults)
    if "substitutions" in block:
        check_substitutions(block["substitutions"], f"{field}.substitutions", mail, faults)
    if "dynamic_template_data" in block:
        is_a(dict, block["dynamic_template_data"], f"{field}.dynamic_template_data", faults)
    if "send_at" in block:
        check_send_at(block["send_at"], f"{field}.send_at", faults)
    if "custom_args" in block:
        check_arguments(mail.get("custom_args"), block["custom_args"], f"{field}.custom_args", faults)


def _check_own_sender(sender: object, field: str, mail: dict[str, Any], faults: list[Fault]) -> None:
    """A personalization's own ``from`` must be at the domain of the root one."""
    address = check_person(sender, field, faults)
    root = mail.get("from")
    root_address = root.get("email") if type(root) is dict else None
    if address is not None and type(root_address) is str and domain_of(address) != domain_of(root_address):
        faults.append(at(f"{field}.email", "The domain of a personalization's from must be that of the root from."))


def check_reply_to(mail: dict[str, Any], faults: list[Fault]) -> None:
    """``reply_to`` or ``reply_to_list``, never both."""
    if "reply_to" in mail:
        check_person(mail["reply_to"], "reply_to", faults)
    if "reply_to_list" not in mail:
        return
    if "reply_to" in mail:
        faults.append(at("reply_to_list", "Only one of reply_to and reply_to_list may be given."))
    people = mail["reply_to_list"]
    if type(people) is not list:
        is_a(list, people, "reply_to_list", faults)
        return
    if len(people) > REPLY_TO_MAX:
        faults.append(at("reply_to_list", f"There may be at most {REPLY_TO_MAX} addresses in reply_to_list."))
        return
    seen: set[str] = set()
    for index, person in enumerate(people):
        address = check_person(person, f"reply_to_list.{index}", faults)
        if address is not None:
            if address.lower() in seen:
                faults.append(at(f"reply_to_list.{index}.email", "Each address in reply_to_list must be unique."))
            seen.add(address.lower())
