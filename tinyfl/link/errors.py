"""What goes wrong on a link, by the reason under which a round counts it."""

from tinyfl.errors import LinkError


class Dead(LinkError):
    """The port is gone, or nothing on it answers."""

    reason = "dead"


class NoLink(Dead):
    """The address is none that can be opened, however often it is tried."""

    exit_code = 2


class Late(LinkError):
    """The deadline passed."""

    reason = "late"


class Corrupt(LinkError):
    """What arrived does not have its hash, or cannot be read."""

    reason = "corrupt"


class Stale(LinkError):
    """The board learnt from other weights, or in another round."""

    reason = "stale"


class Numeric(LinkError):
    """The core's guard ended the round: a value was not finite or too large."""

    reason = "numeric"


class Refused(LinkError):
    """The board refused a request, or is of a kind that this version cannot speak to."""

    reason = "refused"
