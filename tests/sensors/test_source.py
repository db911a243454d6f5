"""A C file's sources on this machine, against NumPy: which readings a round takes, and what becomes of them."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from imu import write_source

from tinyfl import core
from tinyfl.building.boards import load
from tinyfl.core import Stream
from tinyfl.data import Table
from tinyfl.errors import BuildError, ConfigError, DataError, SensorFault
from tinyfl.fleets import emulation
from tinyfl.sensors.recording import recording_of
from tinyfl.sensors.source import HostSource
from tinyfl.sensors.stream import SensedTask
from tinyfl.tasks.sine import Sine

SUMS = """
#include "source.h"

enum { CHANNELS = 5 };

/* x are the sums of two readings; where the first value is negative, the label is unknown. */
static int sums(const tinyfl_stream *stream, uint32_t index, float *x, float *y)
{
    float values[CHANNELS];
    int32_t label = -1;
    (void)index;
    for (int i = 0; i < CHANNELS; i++)
        x[i] = 0.0f;
    for (int n = 0; n < 2; n++) {
        const int code = tinyfl_reading(values, &label);
        if (code != TINYFL_OK)
            return code;
        for (int i = 0; i < CHANNELS; i++)
            x[i] += values[i];
    }
    return tinyfl_one_hot(label, y, stream->outputs);
}

static int twice(const tinyfl_stream *stream, uint32_t index, float *x, float *y)
{
    *x = (float)(stream->device + index);
    *y = 2.0f * *x;
    return TINYFL_OK;
}

static int chip(void *values, int32_t *label) { return (void)values, (void)label, TINYFL_NOT_YET; }

const tinyfl_source tinyfl_sources[] = {
    {.name = "sums", .sample = sums, .read = chip, .type = TINYFL_READS_FLOAT32, .channels = CHANNELS, .rate = 10,
     .shape = {CHANNELS}, .outputs = 2, .loss = TINYFL_SOFTMAX_CROSS_ENTROPY},
    {"twice", twice},
    {NULL, NULL},
};
"""


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], HostSource]:
    path = tmp_path_factory.mktemp("source") / "sums.c"
    path.write_text(SUMS)
    return lambda name: HostSource([path], name)


def recorded(labels: list[int]) -> Table:
    x = np.arange(5 * len(labels), dtype=np.float32).reshape(-1, 5) / 7
    return Table("readings", x, np.array(labels), np.zeros(len(labels), np.int64))


def test_a_round_takes_readings_from_a_drawn_one_on_and_begins_again_after_the_last(
    opened: Callable[[str], HostSource],
) -> None:
    source, table = opened("sums"), recorded([0, 1, 1, 0, 1, 0, 0])
    readings = recording_of(table, source.sensor).of(0, source.sensor)
    x, y = source.round(3, 9, 6, seed=5, inputs=5, outputs=2, readings=readings)
    first = int(core.random(5, Stream.readings, np.array([3], np.uint32), 9, words=1)[0, 0])
    rows = (first + np.arange(12)) % 7
    np.testing.assert_array_equal(x, table.x[rows[::2]] + table.x[rows[1::2]])
    np.testing.assert_array_equal(y, np.eye(2)[table.y[rows[1::2]]])


def test_a_recording_gives_each_reading_once_and_its_labelled_samples(opened: Callable[[str], HostSource]) -> None:
    source, table = opened("sums"), recorded([0, 1, 1, -1, 1, 0, 0])
    samples = source.samples_of(recording_of(table, source.sensor))
    np.testing.assert_array_equal(samples.x, table.x[[0, 4]] + table.x[[1, 5]])
    np.testing.assert_array_equal(samples.y, np.eye(2)[[1, 0]])


def test_a_round_on_unlabelled_readings_ends_with_a_word(opened: Callable[[str], HostSource]) -> None:
    source = opened("sums")
    readings = recording_of(recorded([-1, -1]), source.sensor).of(0, source.sensor)
    with pytest.raises(SensorFault, match="without a label"):
        source.round(0, 0, 1, seed=0, inputs=5, outputs=2, readings=readings)
    with pytest.raises(SensorFault, match="another shape"):
        source.round(0, 0, 1, seed=0, inputs=4, outputs=2, readings=readings)


def test_simulated_devices_run_formulas_and_no_chip(opened: Callable[[str], HostSource]) -> None:
    stream = SensedTask(Sine(1), opened("twice"), 0, None, 0).stream(np.array([2, 5], np.uint32), 0, 3)
    np.testing.assert_array_equal(stream.table[stream.rows][..., 0], [[2, 3, 4], [5, 6, 7]])
    with pytest.raises(ConfigError, match="simulated devices have none"):
        SensedTask(Sine(1), opened("sums"), 0, None, 0)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (
            "double pow(double x, double y);\nfloat f(float x);\nfloat f(float x) { return (float)pow(x, x); }\n",
            "pow: firmware has no C library. <math.h> has sinf",
        ),
        ("#include <nothing.h>\n", "nothing.h: firmware has no C library"),
    ],
)
def test_what_the_firmware_lacks_is_said_with_what_it_has(tmp_path: Path, text: str, word: str) -> None:
    (tmp_path / "more.c").write_text(text)
    with pytest.raises(BuildError, match=word):
        HostSource([write_source(tmp_path / "imu.c"), tmp_path / "more.c"], "imu")


WRONG = {
    "a smaller shape": ("", ".shape = {4, 3}", "wrote more values than x"),
    "a larger shape": ("", ".shape = {20, 3}", "left values of x, y or a reading unwritten"),
    "another type": ("", ".type = TINYFL_READS_FLOAT32", "a place for values of another type"),
    "a label that is no class": ("label = 3;", "", "a label beyond its last class"),
    "a loop without an end": ("for (;;) {}", "", "may never return"),
    "a pointer to nothing": ("*(volatile int *)(uintptr_t)index = 1;", "", "broke the process that runs it"),
    "far too many values": ("for (int i = 0; i < 1 << 28; i++) x[i] = 0.0f;", "", "broke the process that runs it"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_c_file_that_does_not_do_what_it_says_gets_a_word_and_the_next_a_process(tmp_path: Path, wrong: str) -> None:
    change, fields, word = WRONG[wrong]
    source = HostSource([write_source(tmp_path / "imu.c", f"if (stream->seed == 1) {{ {change} }}", fields=fields)], "imu")
    table = Table("readings", np.ones((40, 3)), np.zeros(40, np.int64), np.zeros(40, np.int64))
    readings = recording_of(table, source.sensor).of(0, source.sensor)
    inputs = source.sensor.inputs
    with pytest.raises(SensorFault, match=word):
        source.round(0, 0, 2, seed=1, inputs=inputs, outputs=3, readings=readings)
    if change:
        x, _ = source.round(0, 0, 2, seed=0, inputs=inputs, outputs=3, readings=readings)
        assert x.shape == (2, 30)
    source.close()


@pytest.mark.parametrize(("values", "word"), [(4, "left values of x, y or a reading unwritten"), (6, "wrote more values")])
def test_a_read_of_fewer_or_more_values_than_declared_gets_a_word(tmp_path: Path, values: int, word: str) -> None:
    body = f"*label = 1; for (int i = 0; i < {values}; i++) ((float *)values)[i] = 1.0f; return TINYFL_OK;"
    (tmp_path / "sums.c").write_text(SUMS.replace("return (void)values, (void)label, TINYFL_NOT_YET;", body))
    source = HostSource([tmp_path / "sums.c"], "sums")
    with pytest.raises(SensorFault, match=word):
        source.round(0, 0, 1, seed=0, inputs=5, outputs=2)
    source.close()


def test_labels_of_readings_beyond_the_last_class_are_refused_and_samples_without_one_counted(
    opened: Callable[[str], HostSource],
) -> None:
    source = opened("sums")
    with pytest.raises(DataError, match="the label 2 in row 1, and sums has the classes 0 to 1"):
        recording_of(recorded([0, 2]), source.sensor)
    samples = source.samples_of(recording_of(recorded([0, 1, 1, -1, 1, 0]), source.sensor))
    assert samples.notes == ("samples: 1 of 3 have no label, and are left out",)


def test_a_table_without_its_end_is_refused_by_every_build(tmp_path: Path) -> None:
    path = write_source(tmp_path / "imu.c")
    whole = path.read_text()
    path.write_text(whole.replace("{.name = NULL},\n", ""))
    for build in (
        lambda: HostSource([path], "imu"),
        *(partial(emulation.firmware, load(name), "zig", tmp_path / name, [path]) for name in ("posix", "stm32f405")),
    ):
        with pytest.raises(BuildError, match=r"tinyfl_sources has no end: let its last entry be {\.name = NULL}"):
            build()
    path.write_text(whole)
    HostSource([path], "imu").close()
    for name in ("posix", "stm32f405"):
        emulation.firmware(load(name), "zig", tmp_path / name, [path])
