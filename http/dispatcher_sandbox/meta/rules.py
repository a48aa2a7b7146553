"""The rules of a message to the Cloud API: what must be there, of which type, how long. The first fault is told.

``recipient_type`` and a policy beside the language are not asked for, although the published description requires them: its own
examples go without. Two template names are known for what they are: ``missing_template`` and ``paused_template``.
"""

from __future__ import annotations

import re
from typing import Any

from dispatcher_sandbox.meta.faults import Fault

TEXT_CHARS_MAX = 4096
PARAMETER_CHARS_MAX = 1024
CALLBACK_DATA_CHARS_MAX = 512

_NUMBER = re.compile(r"\+?[0-9][0-9 ()-]{5,24}")
_NAME = re.compile(r"[a-z0-9_]{1,512}")
_LANGUAGE = re.compile(r"[a-z]{2,3}(_[A-Za-z0-9]{2,8}){0,2}")
_COMPONENTS = frozenset({"header", "body", "button", "footer", "limited_time_offer", "carousel"})
_PARAMETERS = frozenset(
    {"text", "currency", "date_time", "image", "video", "document", "location", "payload", "coupon_code", "action"}
)
_TYPES = frozenset(
    {"audio", "contacts", "document", "image", "interactive", "location", "reaction", "sticker", "video", "text", "template"}
)
_TEMPLATES = {
    "missing_template": Fault(132001, "Template name does not exist in the translation"),
    "paused_template": Fault(132015, "Template is Paused"),
}


def fault_of(message: Any) -> Fault | None:
    """What is wrong with a message."""
    if not isinstance(message, dict):
        return Fault(100, "Invalid parameter", "The body must be an object.")
    if message.get("messaging_product") != "whatsapp":
        return Fault(100, "The parameter messaging_product is required.")
    if message.get("recipient_type", "individual") not in ("individual", "group"):
        return Fault(100, "Param recipient_type must be one of {individual, group}")
    to = message.get("to")
    if not isinstance(to, str) or not to:
        return Fault(100, "The parameter to is required.")
    if _NUMBER.fullmatch(to) is None:
        return Fault(131009, "Parameter value is not valid", "to must be a phone number")
    data = message.get("biz_opaque_callback_data")
    if data is not None and not (isinstance(data, str) and len(data) <= CALLBACK_DATA_CHARS_MAX):
        return Fault(100, f"Param biz_opaque_callback_data must be at most {CALLBACK_DATA_CHARS_MAX} characters long.")
    kind = message.get("type", "text")
    if not isinstance(kind, str) or kind not in _TYPES:
        return Fault(131051, "Unsupported message type", "Message type is not currently supported.")
    content = message.get(kind)
    if not isinstance(content, dict):
        return Fault(131008, "Required parameter is missing", f"Parameter of type {kind} is missing")
    if kind == "text":
        return _text(content)
    return _template(content) if kind == "template" else None


def _text(text: dict[str, Any]) -> Fault | None:
    body = text.get("body")
    if not isinstance(body, str) or not body:
        return Fault(131008, "Required parameter is missing", "text.body is missing")
    if len(body) > TEXT_CHARS_MAX:
        return Fault(100, f"Param text['body'] must be at most {TEXT_CHARS_MAX} characters long.")
    if not isinstance(text.get("preview_url", False), bool):
        return Fault(100, "Param text['preview_url'] must be a boolean.")
    return None


def _template(template: dict[str, Any]) -> Fault | None:
    name, language = template.get("name"), template.get("language")
    if not isinstance(name, str) or not name:
        return Fault(131008, "Required parameter is missing", "template.name is missing")
    if not isinstance(language, dict) or not isinstance(language.get("code"), str):
        return Fault(131008, "Required parameter is missing", "template.language.code is missing")
    if _NAME.fullmatch(name) is None or _LANGUAGE.fullmatch(language["code"]) is None:
        return Fault(132001, "Template name does not exist in the translation")
    if name in _TEMPLATES:
        return _TEMPLATES[name]
    components = template.get("components", [])
    if not isinstance(components, list):
        return Fault(100, "Param template['components'] must be an array.")
    for component in components:
        fault = _component(component)
        if fault is not None:
            return fault
    return None


def _component(component: Any) -> Fault | None:
    kind = component.get("type") if isinstance(component, dict) else None
    if not isinstance(kind, str) or kind.lower() not in _COMPONENTS:
        return Fault(100, "Param template['components'] has an unknown type.")
    parameters = component.get("parameters", [])
    if not isinstance(parameters, list):
        return Fault(100, "Param template['components']['parameters'] must be an array.")
    for parameter in parameters:
        given = parameter.get("type") if isinstance(parameter, dict) else None
        if not isinstance(given, str) or given.lower() not in _PARAMETERS:
            return Fault(132012, "Parameter format does not match format in the created template")
        if given.lower() == "text":
            text = parameter.get("text")
            if not isinstance(text, str) or not text:
                return Fault(131008, "Required parameter is missing", "text of a parameter is missing")
            if len(text) > PARAMETER_CHARS_MAX:
                return Fault(132005, "Translated text too long")
            if "\n" in text or "\t" in text or "     " in text:
                return Fault(132012, "Parameter format does not match format in the created template", "new-line or tab")
    return None
