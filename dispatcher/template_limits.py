"""What may go wrong with a template, and how much one may cost.

The cost of rendering is counted, not timed, so the same template and variables always end the same way: a *step* is one
evaluated node of the template, or some dozens of characters or a few elements looked at by a filter. Invariant: no error
carries content. It has a code, the line and part of the template where known, and at most a name that stands in the template's
source.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NoReturn

from attrs import frozen
from jinja2 import StrictUndefined

from dispatcher.errors import DispatcherError
from dispatcher.problems import Problem

MEANINGS: Mapping[str, str] = MappingProxyType(
    {
        "template_too_large": "The source is larger than a template may be, with everything it includes.",
        "template_too_complex": "It nests too deeply or has too many parts.",
        "template_syntax": "It is not a valid template.",
        "template_construct_forbidden": "It uses a construct that templates do not have.",
        "template_attribute_forbidden": "It reaches for a name that templates may not use.",
        "template_call_forbidden": "It calls something that can not be called.",
        "template_filter_unknown": "It uses a filter that does not exist.",
        "template_test_unknown": "It uses a test that does not exist.",
        "template_include_unknown": "It includes a layout that is not stored, or that has no source for this kind of part.",
        "template_include_cycle": "It includes itself, by way of others.",
        "template_include_too_deep": "It includes what includes what includes, too many times over.",
        "template_layout_unknown": "It names a layout that is not stored, or that has no source for any of its parts.",
        "template_layout_content": "The place of the content, {{ content }}, must stand in a layout once, outside of loops and "
        "conditions, and nowhere in what is included.",
        "template_part_missing": "A template of this channel needs this part.",
        "template_part_forbidden": "A template of this channel can not have this part.",
        "template_part_incomplete": "Not every locale of the template has this part.",
        "template_data_invalid": "The data of a push has at most 50 entries; their names have letters, digits, '_', '-' and '.'.",
        "template_schema_invalid": "The schema of the variables can not be used.",
        "template_variable_undeclared": "It uses a variable that it does not declare.",
        "template_variable_missing": "A variable it needs was not given.",
        "template_value_unprintable": "It prints a list or a mapping; loop over it, or use join or tojson.",
        "template_value_wrong": "A value is not of the kind that is needed there.",
        "template_value_too_large": "A value in the course of rendering became too large.",
        "template_steps_exceeded": "Rendering takes more steps than allowed.",
        "template_output_too_large": "The rendered text is larger than allowed.",
        "template_output_invalid": "The rendered text has a character that can not be stored or sent.",
        "template_subject_line_break": "The rendered subject has a line break or a control character.",
        "template_part_line_break": "The rendered text has a line break or a control character, where there may be none.",
        "template_parameter_invalid": "The rendered parameter is empty, too long or not one line, so WhatsApp would refuse it.",
        "template_variable_invalid": "A variable is not as the template's schema says.",
        "template_empty": "The rendered text is empty.",
        "template_argument_wrong": "A filter does not take these arguments.",
        "template_number_invalid": "A value is no number, nor a text that is one.",
        "template_currency_unknown": "A currency is no code of ISO 4217.",
        "template_unit_unknown": "There is no such unit.",
        "template_date_invalid": "A value is no date or time of RFC 3339, or has no time where one is asked for.",
        "template_zone_unknown": "A time zone is not in the IANA database.",
        "template_style_unknown": "There is no such style or skeleton; it has to stand in the template.",
        "template_message_key": "The key of a message has to stand in the template as a text, and its arguments have names.",
        "template_message_missing": "No catalogue of the recipient's locales has this message.",
        "template_message_argument_missing": "A message needs an argument that it is not given.",
    }
)
"""Every code an error of a template can have, with a sentence for the person reading."""


class TemplateError(DispatcherError):
    """A template can not be compiled or rendered.

    ``code`` is a key of ``MEANINGS``; ``line`` counts from 1; ``part`` is the field of the template, ``layout`` what the line is
    of, if not of the template itself; ``name`` is a variable, filter or construct as the template's author wrote it.
    """

    def __init__(self, code: str, name: str | None = None, line: int | None = None, part: str | None = None) -> None:
        super().__init__(code)
        self.code = code
        self.name = name
        self.line = line
        self.part = part
        self.layout: str | None = None

    def __str__(self) -> str:
        where = "".join(f" {word.lower()} {value}" for word, value in self._where())
        return f"{self.code}{where}" + (f" ({self.name})" if self.name else "")

    def at(self, line: int | None = None, part: str | None = None) -> TemplateError:
        """The same error, told where it happened unless it knows already."""
        self.line = line if self.line is None else self.line
        self.part = part if self.part is None else self.part
        return self

    def problem(self, pointer: str | None = None) -> Problem:
        """The answer for whoever sent the template, or the variables."""
        where = " ".join(f"{word} {value}." for word, value in self._where())
        detail = MEANINGS[self.code] + (f" Name: {self.name}." if self.name else "") + (f" {where}" if where else "")
        return Problem(422, self.code, "The template can not be used", detail, pointer)

    def _where(self) -> list[tuple[str, str | int]]:
        words = (("Part", self.part), ("Layout", self.layout), ("Line", self.line))
        return [(word, value) for word, value in words if value is not None]


class MissingVariable(TemplateError):
    """A variable was not given, or is null where a text is needed. ``name`` is its path, such as ``user.name``."""

    def __init__(self, name: str, line: int | None = None, part: str | None = None) -> None:
        super().__init__("template_variable_missing", name, line, part)


class Missing(StrictUndefined):
    """A value that is not there: may be asked whether it is defined, or given a default; everything else names it and fails."""

    __slots__ = ()

    def __init__(self, hint: str | None = None, obj: Any = None, name: str | None = None, exc: Any = None) -> None:
        super().__init__(name=name, exc=lambda _message: MissingVariable(name or "loop"))  # type: ignore[arg-type]

    def fail(self) -> NoReturn:
        """Raise the error that names it."""
        self._fail_with_undefined_error()


@frozen
class Limits:
    """How large a template and what it renders may be. Each field is a number of what its name says; ``expanded_bytes_max`` is
    of one source with everything it includes, as often as it does."""

    source_bytes_max: int = 128 * 1024
    nodes_max: int = 4_000
    depth_max: int = 40
    steps_max: int = 50_000
    output_bytes_max: int = 512 * 1024
    expanded_bytes_max: int = 512 * 1024


DEFAULT_LIMITS: Final = Limits()


class Budget:
    """What is left of the steps of one rendering, and how long a single text or list in it may be."""

    __slots__ = ("length_max", "steps_left")

    def __init__(self, steps_max: int, length_max: int) -> None:
        self.steps_left = steps_max
        self.length_max = length_max

    def charge(self, steps: int) -> None:
        """Spend steps. Raises TemplateError when there are not so many left."""
        self.steps_left -= steps
        if self.steps_left < 0:
            raise TemplateError("template_steps_exceeded")

    def fit(self, length: int) -> None:
        """Raise TemplateError when a text or list of this length would be too large to hold."""
        if length > self.length_max:
            raise TemplateError("template_value_too_large")

    def allow(self, length: int) -> None:
        """Spend the steps of making a text or list of this length. Raises TemplateError when it would be too large."""
        self.fit(length)
        self.charge(1 + (length >> 6))
