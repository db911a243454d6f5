"""A terminal that is safe for untrusted text: markup is off, and control characters are replaced."""

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from tinyfl.errors.words import visible


class Terminal(Console):
    """rich's console, for lines, tables and bars. Its control codes are in segments' style and control, never in their text."""

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, markup=False, emoji=False)

    @property
    def redraws(self) -> bool:
        """Whether a bar can move on it; not so on a file, a pipe or a dumb terminal."""
        return self.is_terminal and not self.is_dumb_terminal

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=visible(segment.text))
