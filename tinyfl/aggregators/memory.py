"""What an aggregator remembers from round to round. It is in attributes of a Flower strategy, which no checkpoint holds."""

import pickle
from collections.abc import Mapping
from contextlib import suppress
from hashlib import sha256

from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping, Strategy


def attributes(aggregator: Strategy | None) -> Mapping[str, str]:
    """A hash of each attribute's value. Attributes without bytes of their own, such as functions from a lambda, have none."""
    if isinstance(aggregator, DifferentialPrivacyServerSideFixedClipping):  # around the aggregator; resumed with its accountant
        aggregator = aggregator.strategy
    hashes = dict[str, str]()
    for name, value in vars(aggregator).items() if aggregator else ():
        with suppress(Exception):  # whatever a stranger's class raises
            hashes[name] = sha256(pickle.dumps(value)).hexdigest()
    return hashes


def remembered(aggregator: Strategy | None, before: Mapping[str, str]) -> str:
    """The attributes that are not as ``before``, by name."""
    return ", ".join(sorted(name for name, value in attributes(aggregator).items() if before.get(name) != value))
