"""The parts of a template by channel: which there must be, which there may be, and where each goes in the payload.

A part is one source. It is called by its place in the template as it is handed in, such as ``subject``, ``data/order`` or
``whatsapp/parameters/0``, which is also how errors point to it. Invariant: what a template's parts render to together has the
fields that ``acceptance.CONTENT_FIELDS`` lists for its channel.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

from attrs import frozen

from dispatcher.model import Channel, Template
from dispatcher.template_limits import TemplateError
from dispatcher.whatsapp import PARAMETERS_MAX

SUBJECT_BYTES_MAX: Final = 998
"""The longest line a mail may have."""
DATA_MAX: Final = 50
"""The most entries that the data of a push may have."""
TEXT: Final = "body_template"
_ALLOWED: Final[Mapping[Channel, frozenset[str]]] = MappingProxyType(
    {
        Channel.EMAIL: frozenset({"subject", TEXT, "html_template"}),
        Channel.SMS: frozenset({TEXT}),
        Channel.PUSH: frozenset({TEXT, "title", "data"}),
        Channel.WHATSAPP: frozenset({TEXT, "whatsapp"}),
    }
)
_DATA_KEY: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")


@frozen
class PartSource:
    """One source: what it is called, where it goes in the payload (an entry of ``group``, if there is one), what holds for it.

    ``wrapped`` says that the template's layout goes around it; ``bytes_max`` is a bound beside those of the whole payload.
    """

    name: str
    source: str
    key: str
    group: str | None = None
    escapes: bool = False
    one_line: bool = False
    wrapped: bool = False
    bytes_max: int | None = None


def part_sources(template: Template) -> list[PartSource]:
    """All parts of a template, in the order in which they are rendered. They are as :func:`part_faults` wants them."""
    parts = template.parts
    found = []
    if template.subject is not None:
        found.append(PartSource("subject", template.subject, "subject", one_line=True, bytes_max=SUBJECT_BYTES_MAX))
    if parts.get("title") is not None:
        found.append(PartSource("title", parts["title"], "title", one_line=True))
    if parts.get("whatsapp") is not None:
        sources = parts["whatsapp"].get("parameters", ())
        found.extend(PartSource(f"whatsapp/parameters/{n}", one, "", "parameters") for n, one in enumerate(sources))
    else:
        found.append(PartSource(TEXT, template.body_template, "text", wrapped=True))
    if template.html_template is not None:
        found.append(PartSource("html_template", template.html_template, "html", escapes=True, wrapped=True))
    if parts.get("data") is not None:
        found.extend(PartSource(f"data/{key}", one, key, "data") for key, one in parts["data"].items())
    return found


def part_faults(template: Template) -> Iterator[TemplateError]:
    """What is wrong with which parts there are, whatever is in them."""
    parts, allowed = template.parts, _ALLOWED[template.channel]
    given = {name for name in ("title", "data", "whatsapp") if parts.get(name) is not None}
    given |= {name for name in ("subject", "html_template") if getattr(template, name) is not None}
    for name in sorted(given - allowed):
        yield TemplateError("template_part_forbidden", part=name)
    if template.channel is Channel.EMAIL and not template.subject:
        yield TemplateError("template_part_missing", part="subject")
    if "whatsapp" in given and template.body_template:
        yield TemplateError("template_part_forbidden", part=TEXT)
    data = parts.get("data") or {}
    if len(data) > DATA_MAX or not all(_DATA_KEY.fullmatch(key) for key in data):
        yield TemplateError("template_data_invalid", part="data")
    parameters = (parts.get("whatsapp") or {}).get("parameters", ())
    if len(parameters) > PARAMETERS_MAX:
        yield TemplateError("template_too_complex", part="whatsapp/parameters")


def part_names(template: Template) -> frozenset[str]:
    """What has to be the same in all locales: the parts it has, the entries of its data, and whether it is a provider's."""
    names = {part.name for part in part_sources(template) if part.group != "parameters"}
    return frozenset(names | ({"whatsapp"} if template.parts.get("whatsapp") is not None else set()))


def payload_of(template: Mapping[str, Any] | None) -> dict[str, Any]:
    """What a payload begins with, to be filled with rendered parts: the frame of a WhatsApp template, or nothing."""
    if template is None:
        return {}
    return {"template": {"name": template["name"], "language": template["language"], "parameters": []}}
