"""A 3-axis accelerometer for the tests: its C file, with one thing changed in it, and recorded readings of six people."""

from pathlib import Path

import numpy as np

SOURCE = """
#include "source.h"
#include <math.h>

enum {{ WINDOW = 10, AXES = 3 }};

static int imu(const tinyfl_stream *stream, uint32_t index, float *x, float *y)
{{
    int16_t axes[AXES];
    int32_t label = -1;
    float power = 0.0f;
    (void)index;
    for (int i = 0; i < WINDOW; i++) {{
        const int code = tinyfl_reading(axes, &label);
        if (code != TINYFL_OK)
            return code;
        for (int a = 0; a < AXES; a++)
            x[i * AXES + a] = (float)axes[a] / 8192.0f;
    }}
    for (int i = 0; i < WINDOW * AXES; i++)
        power += x[i] * x[i];
    power = sqrtf(power / (WINDOW * AXES)) + expf(-6.0f);
    for (int i = 0; i < WINDOW * AXES; i++)
        x[i] = x[i] / power + 0.001f * cosf(x[i]);
    {change}
    return tinyfl_one_hot(label, y, stream->outputs);
}}

{more}

const tinyfl_source tinyfl_sources[] = {{
    {{.name = "imu", .sample = imu, .type = TINYFL_READS_INT16, .channels = AXES, .rate = 1000, .shape = {{WINDOW, AXES}},
     .outputs = 3, .loss = TINYFL_SOFTMAX_CROSS_ENTROPY, .labels = "rest,shake,walk", {fields}}},
    {{.name = "sine", .sample = tinyfl_sine_source}},
    {{.name = NULL}},
}};
"""


def write_source(path: Path, change: str = "", more: str = "", fields: str = "") -> Path:
    """Writes the C file; ``change`` stands before its label is looked at, ``more`` before the table, ``fields`` in its row."""
    path.write_text(SOURCE.format(change=change, more=more, fields=fields))
    return path


def write_readings(path: Path, people: int = 6) -> Path:
    """Writes readings of ``people``, in bouts of a label each."""
    random, x, y, device = np.random.default_rng(7), [], [], []
    for person in range(people):
        for bout in range(9):
            label = bout % 3
            t, axis = np.arange(40)[:, None] / 50, np.arange(3)
            wave = (label > 0) * np.sin(2 * np.pi * (0, 5, 2)[label] * t + axis + person) * (0.5 + 0.1 * person)
            x.append((8192 * (wave + 0.05 * random.normal(size=(40, 3)) + (axis == 2))).astype(np.int16))
            y += [("rest", "shake", "walk")[label]] * 40
            device += [f"person {person}"] * 40
    np.savez(path, x=np.concatenate(x), y=np.array(y), device=np.array(device))
    return path
