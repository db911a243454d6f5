"""Cuts of power on emulated boards."""

from collections.abc import Callable
from typing import Any

import pytest

from tinyfl.errors import Dead


def demand_old_or_new(machine: Any, change: Callable[[], object], told: Callable[[], object]) -> None:
    """Demands that a cut at any write or erase of ``change`` leaves what the board ``told`` before or after it, and none the
    latter."""
    old, before, start = told(), machine.snapshot(), machine.slot_events
    change()
    events, new = machine.slot_events - start, told()
    assert events > 0
    assert new != old
    for cut in range(events + 1):
        machine.restore(before)
        machine.cut_power_after(cut)
        if cut < events:
            with pytest.raises(Dead):
                change()
        else:
            change()
        machine.power_cycle()
        assert told() in ([old, new] if cut < events else [new])
