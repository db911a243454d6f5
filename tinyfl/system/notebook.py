"""Progress below a notebook's cell."""

import sys
from collections.abc import Callable
from importlib import import_module


def line() -> Callable[[object], None] | None:
    """A function that shows its argument below the cell, in place of the one before; None outside of a notebook."""
    get_shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)
    if getattr(get_shell(), "kernel", None) is None:  # a script, or IPython in a terminal
        return None
    display = import_module("IPython.display").display
    shown = display({"text/plain": ""}, raw=True, display_id=True)
    return lambda words: shown.update({"text/plain": str(words)}, raw=True)
