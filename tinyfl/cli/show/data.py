"""Terminal output for verbs on a user's data."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from rich.table import Table

from tinyfl.cli.common import say
from tinyfl.cli.show.terminal import Terminal
from tinyfl.data.published import Published

PARTS = {"train": "for training", "validation": "for choosing rates", "test": "held out", "none": "unused"}
MOST = 20
"""Maximum number of classes in the table; more are counted."""


def check(found: dict[str, Any]) -> None:
    """What a table would make of a run."""
    console = Terminal()
    for note in found["notes"]:
        console.print(note, highlight=False, soft_wrap=True)
    samples = np.array([each["samples"] for each in found["devices"]])
    parts = [each["part"] for each in found["devices"]]
    told = ", ".join(f"{parts.count(part):,} {words}" for part, words in PARTS.items() if part in parts)
    each = f"{samples.min():,} to {samples.max():,} samples each, {int(np.median(samples)):,} in the median"
    inputs = f"{found['samples']:,} samples of {found['inputs']:,} inputs; y: {found['targets']}"
    console.print(f"{len(parts):,} devices ({told}) with {each}; {inputs}", highlight=False, soft_wrap=True)
    if found["classes"]:
        table = Table("class")
        for column in ("samples", "share", "devices"):
            table.add_column(column, justify="right")
        for each in found["classes"][:MOST]:
            share = f"{100 * each['samples'] / found['samples']:.1f} %"
            table.add_row(each["class"], f"{each['samples']:,}", share, f"{each['devices']:,}")
        console.print(table)
        if len(found["classes"]) > MOST:
            console.print(f"and {len(found['classes']) - MOST:,} more classes")
    for finding in found["findings"]:
        style = "bold red" if finding["refused"] else "yellow"
        console.print(f"{finding['kind']}: {finding['words']}", style=style, highlight=False, soft_wrap=True)
    if not found["findings"]:
        console.print("nothing suspicious")


def published(sets: Sequence[Published]) -> None:
    """The published data sets, a few lines each, so that names and addresses stay whole."""
    for each in sets:
        size = f"{each.bytes:,} bytes" if each.bytes else "size unknown"
        checksum = f"checksum of {each.digest_of}" if each.digest else "unchecked"
        say(f"{each.task}: {each.file}\n  {each.about}\n  {each.url}\n  {size}; {checksum}; licence: {each.licence}")
