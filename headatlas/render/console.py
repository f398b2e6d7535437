"""The console that commands print on: nothing that it is given is markup, and what acts on a terminal is written out."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from headatlas.render.escape import shown


class _Plain(Console):
    def render_str(self, text: str, **options: Any) -> Text:
        """As rich does it. Written out here already, so that columns are measured as they will stand."""
        return super().render_str(shown(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """As rich does it; every text of a Text, a table or a panel passes here on its way to the screen."""
        return written_out(super().render(renderable, options))


def written_out(segments: Iterable[Segment]) -> Iterable[Segment]:
    """Segments with what acts or hides written out; rich's own control codes stay."""
    for segment in segments:
        yield segment if segment.control else Segment(shown(segment.text), segment.style)


def console(*, stderr: bool = False) -> Console:
    """A console on standard output, or on standard error; brackets and numbers in what it prints are just text."""
    return _Plain(stderr=stderr, markup=False, highlight=False, emoji=False)


def as_text(thing: RenderableType, width: int) -> str:
    """What a console of this width would show, without colours and blanks at the ends of lines."""
    told = io.StringIO()
    screen = _Plain(file=told, width=width, color_system=None, markup=False, highlight=False, emoji=False)
    screen.print(thing)
    return "\n".join(line.rstrip() for line in told.getvalue().splitlines())
