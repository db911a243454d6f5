"""What a line carries: bytes, and the time that they take at its rate."""

from dataclasses import dataclass
from math import nan

BITS_PER_BYTE = 10
"""On a serial line with 8N1: a start bit, the byte, a stop bit."""


@dataclass(frozen=True)
class Line:
    """What a wire has carried: bytes in both directions, and the seconds that they take at its rate, NaN without one."""

    sent: int = 0
    received: int = 0
    sending: float = 0.0
    receiving: float = 0.0

    def after(self, wire: object, sent: int = 0, received: int = 0) -> "Line":
        """With further bytes over ``wire``."""
        rate = getattr(wire, "rate", 0)
        second = BITS_PER_BYTE / rate if rate else nan
        return Line(
            self.sent + sent, self.received + received, self.sending + sent * second, self.receiving + received * second
        )
