"""The terminal, for words of any kind: none of them is markup, and what would steer it is replaced."""

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from tinyfl.errors.words import visible


class Terminal(Console):
    """rich's console, for lines, tables and bars. Rich steers by the style and control of segments, never by their text."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text))
