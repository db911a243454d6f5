"""A serial line whose two ends have different baud rates."""

ALIKE = 0.02
"""The share by which two rates may differ without harm: of the 5 % that shift a byte's last bit by a half, shared by both ends
and the edges."""


def misread(data: bytes, sent: int, heard: int) -> bytes:
    """The bytes that a UART of ``heard`` baud makes of ``data`` sent back to back at ``sent`` baud (8N1). It samples in the
    middle of its bits, delivers a byte whose stop bit is missing too, and then waits for the line to be idle."""
    if abs(heard - sent) < ALIKE * sent:
        return data
    levels = bytes(level for byte in data for level in (0, *(byte >> bit & 1 for bit in range(8)), 1))
    out, at = bytearray(), levels.find(0)
    while at >= 0:
        samples = [at + (2 * bit + 3) * sent // (2 * heard) for bit in range(9)]  # eight bits and the stop bit
        *bits, stop = (levels[sample] if sample < len(levels) else 1 for sample in samples)
        out.append(sum(level << bit for bit, level in enumerate(bits)))
        idle = samples[-1] if stop else levels.find(1, samples[-1])
        at = levels.find(0, idle) if idle >= 0 else -1
    return bytes(out)
