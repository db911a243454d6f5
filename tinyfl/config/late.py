"""What goes with asynchronous rounds, and what does not."""

from tinyfl.config.settings import Settings
from tinyfl.errors import ConfigError


def check_late(config: Settings) -> None:
    """Raises ConfigError where rounds could not be asynchronous as the config says."""
    if not config.buffer:
        if config.slow:
            raise ConfigError("--slow is for virtual time, and synchronous rounds have none. Give --buffer N too.")
        return
    how = f"--buffer {config.buffer}"
    if config.buffer > config.cohort:
        raise ConfigError(
            f"{how} waits for more devices than the {config.cohort:,} at work. Give --buffer {config.cohort} or less, or a "
            "larger --cohort."
        )
    if config.minimum > config.buffer:
        raise ConfigError(
            f"a minimum of {config.minimum:,} updates with {how}: no round could count. Give a smaller --minimum, or a larger "
            "--buffer."
        )
    for name, why in {
        "aggregator": "compares updates from the same theta, and late ones are from older",
        "noise": "is known to protect devices only in cohorts that are drawn anew for each round",
        "update_clip": "is for the updates of one cohort",
        "delta": "counts on devices that got the theta of the round before",
        "feedback": "keeps something from one round to the next",
    }.items():
        if getattr(config, name):
            raise ConfigError(f"--{name.replace('_', '-')} {why}. Leave it out, or --buffer.")
    if config.sampling != "uniform":
        raise ConfigError(f"--sampling {config.sampling} chooses whole cohorts, and {how} has none. Leave one of them out.")
    if config.nodes not in ("1", "devices"):
        raise ConfigError(f"{how} takes each update when it arrives, and gateways send sums. Leave --nodes out.")
    if config.slow and any(not part.native for part in config.fleet):
        raise ConfigError("--slow is for simulated devices, and boards take as long as they take. Leave it out.")
