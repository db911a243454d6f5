"""tinyfl's aggregators, one entry each: what may replace the mean, and with how many devices it can."""

import math

from tinyfl.registry.entries import AggregatorEntry, by_name


def poisoned(cohort: int, tolerate: float) -> int:
    """The number of poisoned devices of a full cohort that Krum is told of."""
    return math.ceil(tolerate * cohort)


def _cuts_none(cohort: int, tolerate: float) -> str:
    if not tolerate or int(tolerate * cohort):
        return ""
    return (
        f"the trimmed mean of {cohort} devices at --tolerate {tolerate:g} cuts off none of them. "
        f"Give --cohort {math.ceil(1 / tolerate)} or more, or a larger --tolerate."
    )


def _too_few(cohort: int, tolerate: float) -> str:
    bad = poisoned(cohort, tolerate)
    if cohort >= 2 * bad + 3:
        return ""
    return (
        f"krum withstands {bad} of a cohort with {2 * bad + 3} devices or more, and this one has {cohort}. "
        "Give a larger --cohort, or a smaller --tolerate."
    )


AGGREGATORS: dict[str, AggregatorEntry] = by_name(
    AggregatorEntry("median", "tinyfl.aggregators.robust:Median", "the median of each weight"),
    AggregatorEntry(
        "trimmed-mean", "tinyfl.aggregators.robust:TrimmedMean", "each weight's mean without its extremes", refusal=_cuts_none
    ),
    AggregatorEntry(
        "krum", "tinyfl.aggregators.robust:NearestUpdate", "the update that is closest to others", refusal=_too_few
    ),
)
