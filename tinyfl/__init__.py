"""tinyfl: train a fleet of microcontrollers together.

import tinyfl

run = tinyfl.simulate(task="digits", devices=1000, out="runs/first")
for row in run.evaluation:
    print(row["mode"], row["shots"], row["steps"], row["accuracy"])
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["__version__", "adapt", "evaluate", "predict", "simulate"]

if TYPE_CHECKING:
    from tinyfl.runs.adaptation import adapt
    from tinyfl.runs.prediction import predict
    from tinyfl.runs.reevaluation import evaluate
    from tinyfl.simulation import simulate
else:  # a checker that saw this function would take any name for one of tinyfl's
    _MODULES = {
        "adapt": "tinyfl.runs.adaptation",
        "evaluate": "tinyfl.runs.reevaluation",
        "predict": "tinyfl.runs.prediction",
        "simulate": "tinyfl.simulation",
    }

    def __getattr__(name: str) -> object:
        """Heavy parts load when first used, so that `import tinyfl` and `tinyfl --help` stay quick."""
        if name in _MODULES:
            from importlib import import_module

            return getattr(import_module(_MODULES[name]), name)
        raise AttributeError(f"module 'tinyfl' has no attribute {name!r}")
