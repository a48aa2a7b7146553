"""Sources of several texts: what a template includes, and the layout it is wrapped in.

An organization's layouts are its *library*. ``{% include "footer" %}`` is replaced by the layout of that name, and a template
that names a layout stands where that has ``{{ content }}``. Both happen once, when a template is compiled, so what is compiled is
one tree, and the limits of nodes, depth and steps are those of the whole. Names are constant, cycles are refused. Invariant: the
lines of a tree tell which text they are of, so that every error can.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MappingProxyType
from typing import Final

from attrs import field, frozen
from jinja2 import TemplateSyntaxError, nodes

from dispatcher.template_limits import Limits, TemplateError

CONTENT: Final = "content"
"""The variable of a layout that stands for what it is wrapped around."""
INCLUDES_DEEP_MAX: Final = 8
"""How many layouts may include one another in a row."""

_ORIGIN_SHIFT: Final = 20  # more lines than the largest source has


@frozen
class Layout:
    """One layout by its name. ``text`` is for plain parts, ``html`` for parts that escape; at least one is there.

    ``wraps`` tells those that have a place for the content, to wrap templates in, from those that are there to be included.
    ``includes`` are the layouts it includes itself.
    """

    name: str
    text: str | None = field(default=None, repr=False)
    html: str | None = field(default=None, repr=False)
    wraps: bool = False
    includes: frozenset[str] = frozenset()

    def source(self, escapes: bool) -> str | None:
        """What it has for parts that escape, or for plain ones."""
        return self.html if escapes else self.text


Library = Mapping[str, Layout]
"""An organization's layouts by name."""

NO_LIBRARY: Final[Library] = MappingProxyType({})


class Texts:
    """The texts that one compiled source is made of, the template's own first. Used once, by one compilation.

    Without a ``library`` what is included is noted and left out.
    """

    def __init__(self, parse: Callable[[str], nodes.Template], escapes: bool, limits: Limits, library: Library | None) -> None:
        self.included: set[str] = set()
        self._parse = parse
        self._escapes = escapes
        self._limits = limits
        self._library = library
        self._origins: list[str | None] = []
        self._under_way: list[str] = []
        self._bytes_left = limits.expanded_bytes_max

    def tree(self, source: str, layout: str | None = None) -> nodes.Template:
        """Parse one text; ``layout`` is the name of the layout it is of. Raises TemplateError."""
        self._bytes_left -= len(source.encode())
        if self._bytes_left < 0:
            raise TemplateError("template_too_large", layout)
        base = len(self._origins) << _ORIGIN_SHIFT
        self._origins.append(layout)
        try:
            tree = self._parse(source)
        except TemplateSyntaxError as error:
            raise TemplateError("template_syntax", line=error.lineno + base) from None
        if base:
            _move(tree, base)
        return tree

    def layout(self, name: str) -> nodes.Template:
        """The layout of that name, to be wrapped around. Raises TemplateError."""
        layout = (self._library or NO_LIBRARY).get(name)
        source = None if layout is None else layout.source(self._escapes)
        if source is None:
            raise TemplateError("template_layout_unknown", name)
        return self.tree(source, name)

    @contextmanager
    def inclusion(self, node: nodes.Include) -> Iterator[Sequence[nodes.Node]]:
        """What stands in place of an include, for as long as it is looked at. Raises TemplateError."""
        if not isinstance(node.template, nodes.Const) or not isinstance(node.template.value, str):
            raise TemplateError("template_construct_forbidden", "include of a computed name", node.lineno)
        if node.ignore_missing or not node.with_context:
            raise TemplateError("template_construct_forbidden", "include with options", node.lineno)
        name = node.template.value
        if name in self._under_way:
            chain = " > ".join((*self._under_way[self._under_way.index(name) :], name))
            raise TemplateError("template_include_cycle", chain, node.lineno)
        if len(self._under_way) >= INCLUDES_DEEP_MAX:
            raise TemplateError("template_include_too_deep", name, node.lineno)
        self.included.add(name)
        if self._library is None:
            yield ()
            return
        layout = self._library.get(name)
        source = None if layout is None else layout.source(self._escapes)
        if source is None:
            raise TemplateError("template_include_unknown", name[:64], node.lineno)
        self._under_way.append(name)
        yield self.tree(source, name).body
        self._under_way.pop()

    def located(self, error: TemplateError) -> TemplateError:
        """An error whose line is one of a tree, with the line of the text it is of."""
        return located(error, self._origins)

    @property
    def origins(self) -> tuple[str | None, ...]:
        """The layouts that the texts are of, None for the template's own."""
        return tuple(self._origins)


def located(error: TemplateError, origins: Sequence[str | None]) -> TemplateError:
    """The same for whoever kept the ``origins`` only."""
    if error.line is not None and error.layout is None:
        index, error.line = error.line >> _ORIGIN_SHIFT, error.line & ((1 << _ORIGIN_SHIFT) - 1)
        error.layout = origins[index] if index < len(origins) else None
    return error


def _move(tree: nodes.Node, lines: int) -> None:
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if node.lineno is not None:
            node.lineno += lines
        waiting.extend(node.iter_child_nodes())
