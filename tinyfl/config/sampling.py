"""What goes with a choice of devices by their tasks, and what does not."""

from tinyfl.config.settings import Settings
from tinyfl.errors import ConfigError

MOST = {"dpp": 128, "farthest": 1024, "similar": 1024}
"""Largest cohorts: a dpp decomposes a matrix of eight candidates for each place in every round."""


def check_sampling(config: Settings) -> None:
    """Raises ConfigError where devices could not be chosen as the config says."""
    how = f"--sampling {config.sampling}"
    if config.sampling == "uniform":
        if config.embedding:
            raise ConfigError(
                "--embedding is what devices are chosen by, and uniform cohorts are drawn. Give --sampling dpp too."
            )
        return
    fits = 2 <= config.cohort <= MOST[config.sampling]
    and_cohort = "" if fits else " and --cohort 8"
    if not config.embedding:
        raise ConfigError(
            f"{how} goes by what tells tasks apart: say what that is with --embedding tags, updates, means or parameters"
            f"{and_cohort} (docs/sampling.md)."
        )
    if config.noise:
        raise ConfigError(f"{how} with --noise: what noise buys is known for uniform cohorts alone. Leave one of them out.")
    if config.embedding == "updates" and config.nodes != "devices":
        raise ConfigError(
            f"--embedding updates goes by single updates, and gateways send sums. Give --nodes devices{and_cohort}."
        )
    if not fits:
        raise ConfigError(
            f"{how} is for cohorts of 2 to {MOST[config.sampling]:,} devices, and this one has {config.cohort:,}. "
            "Give --cohort 8."
        )
