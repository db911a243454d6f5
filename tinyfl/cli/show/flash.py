"""Terminal output for flashing."""

from collections.abc import Sequence

from rich.box import SIMPLE
from rich.table import Table
from rich.text import Text

from tinyfl.cli.show.terminal import Terminal
from tinyfl.flash.run import FAILED, FLASHED, UP_TO_DATE, FlashResult

STYLES = {FLASHED: "green", UP_TO_DATE: "dim", FAILED: "red"}


def outcome(one: FlashResult) -> None:
    """Prints one board's result on stderr, while others are in progress."""
    Terminal(stderr=True).print(f"{one.who}: {one.what}", highlight=False, soft_wrap=True)


def outcomes(all: Sequence[FlashResult]) -> None:
    """A table of all boards' results; below, the reasons for failures, and the commands to retry."""
    console = Terminal()
    table = Table(box=SIMPLE)
    for column in ("board", "id", "what", "by", "firmware"):
        table.add_column(column, no_wrap=column != "id", overflow="fold")
    table.add_column("seconds", justify="right")
    for one in all:
        firmware = f"{one.before} →\n{one.firmware}" if one.before not in ("", one.firmware) else one.firmware
        seconds = f"{one.seconds:.1f}" if one.seconds else ""
        what = Text(one.what, STYLES.get(one.what, "yellow"))
        table.add_row(*map(Text, (one.board, one.id)), what, one.method, firmware, seconds)
    console.print(table)
    for one in all:
        if one.detail:
            console.print(f"{one.who}: {one.detail}\n", highlight=False, soft_wrap=True)
    if again := [one.retry for one in all if one.retry]:
        console.print("To try again:\n" + "\n".join(f"  {line}" for line in again), highlight=False, soft_wrap=True)
