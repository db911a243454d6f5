"""What a UART hears on a line of another rate, against one that ticks."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tinyfl.simulators.line import misread

RATES = st.sampled_from([115_200, 230_400, 460_800, 921_600])


def ticking(data: bytes, sent: int, heard: int) -> bytes:
    """A receiver of 16 samples a bit, as state and counter."""
    ticks, out, idle, at, byte = 0, bytearray(), True, 0, 0
    per_bit = 16 * heard / sent  # the receiver's ticks in a bit on the line
    while ticks < per_bit * 10 * len(data) or not idle:
        bit = int(ticks / per_bit)
        level = 1 if bit >= 10 * len(data) else [0, *(data[bit // 10] >> i & 1 for i in range(8)), 1][bit % 10]
        if idle and not level:
            idle, at, byte = False, 0, 0
        if not idle:
            if at % 16 == 8 and 0 < at // 16 < 9:
                byte |= level << at // 16 - 1
            if at == 9 * 16 + 8:
                out.append(byte)
            idle = at >= 9 * 16 + 8 and level == 1
            at += 1
        ticks += 1
    return bytes(out)


@settings(max_examples=40)
@given(st.binary(max_size=8), RATES, RATES)
def test_bytes_of_another_rate_are_those_that_a_uart_makes_of_them(data: bytes, sent: int, heard: int) -> None:
    assert misread(data, sent, heard) == ticking(data, sent, heard)


@given(st.binary(max_size=50), RATES)
def test_a_rate_that_is_near_enough_hurts_no_byte(data: bytes, baud: int) -> None:
    assert misread(data, baud, baud * 101 // 100) == data
