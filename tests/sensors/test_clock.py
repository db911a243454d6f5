"""The clock of a board's sources, and recorded readings in QEMU."""

from pathlib import Path

import numpy as np
import pytest
from imu import write_readings, write_source

from tinyfl.fleets import emulation
from tinyfl.link.board import LinkedBoard
from tinyfl.link.sensing import readings, sample, sensor_of
from tinyfl.link.wire import Opener
from tinyfl.sensors.source import images
from tinyfl.system.loop import in_loop

WAITS = """
#include "source.h"

/* x is how long a wait of 30 ms took, y how many times the clock was seen to go on by more than a millisecond. */
static int waits(const tinyfl_stream *stream, uint32_t index, float *x, float *y)
{
    const uint32_t from = tinyfl_millis();
    uint32_t before = from, now;
    (void)stream, (void)index;
    *y = 0.0f;
    while ((now = tinyfl_millis()) - from < 30) {
        *y += now - before > 1 ? 1.0f : 0.0f;
        before = now;
    }
    *x = (float)(now - from);
    return TINYFL_OK;
}

const tinyfl_source tinyfl_sources[] = {{"waits", waits}, {NULL, NULL}};
"""


@pytest.mark.parametrize("board", ["mps2-an386", "stm32f405", "microbit-v2", "pico"])
def test_milliseconds_pass_one_by_one_on_an_emulated_chip(tmp_path: Path, board: str) -> None:
    (tmp_path / "waits.c").write_text(WAITS)

    async def ask(opener: Opener) -> list[tuple[float, float]]:
        link = await LinkedBoard.connect(opener)
        taken = [await sample(link, "waits", 1, 60.0) for _ in range(8)]  # together longer than SysTick's period on some
        await link.close()
        return [(float(each.x[0]), float(each.y[0])) for each in taken]

    with emulation.started(board, sources=[tmp_path / "waits.c"]) as (running,):
        assert in_loop(ask(running.opener)) == [(30.0, 0.0)] * 8


@pytest.mark.usefixtures("emulators")
def test_qemu_has_the_readings_too(tmp_path: Path) -> None:
    source, taken = write_source(tmp_path / "imu.c"), write_readings(tmp_path / "readings.npz", people=1)

    async def ask(opener: Opener) -> object:
        link = await LinkedBoard.connect(opener)
        got = await readings(link, sensor_of(link, "imu"), 20, 60.0)
        await link.close()
        return got["values"]

    held = images(taken, "imu", [source], 1)
    with emulation.started("mps2-an386", engine="qemu", sources=[source], readings=held) as (running,):
        np.testing.assert_array_equal(in_loop(ask(running.opener)), np.load(taken)["x"][:20])
