"""Log-mel features of a second of sound: what a small network takes for keywords.

A window of 30 ms every 20 ms (Hann, 16 kHz), the power of its spectrum in 40 triangular bands between 20 and 7,600 Hz that are
evenly spaced in mel = 2595 log10(1 + Hz / 700), in decibels, as one byte q: dB = q / 2.5 - 100.
"""

import io
import wave

import numpy as np
from numpy.typing import NDArray

from tinyfl.core import U8
from tinyfl.errors import DataError
from tinyfl.errors.words import plain

RATE, WINDOW, HOP, FFT, BANDS = 16_000, 480, 320, 512, 40
LOWEST, HIGHEST = 20.0, 7_600.0
FRAMES = 1 + (RATE - WINDOW) // HOP
FLOOR, STEPS = -100.0, 2.5
"""The smallest value in decibels, and steps for each of them."""


def features(sound: NDArray[np.floating]) -> U8:
    """The features of ``sound``, float (RATE,), within -1 to 1: uint8 (FRAMES, BANDS)."""
    taper = np.hanning(WINDOW + 1)[:-1]
    frames = np.lib.stride_tricks.sliding_window_view(sound, WINDOW)[::HOP] * taper
    power = np.abs(np.fft.rfft(frames, FFT)) ** 2 / taper.sum() ** 2
    decibels = 10 * np.log10(np.maximum(power @ _bands().T, 1e-12))
    scaled: U8 = np.clip(np.rint((decibels - FLOOR) * STEPS), 0, 255).astype(np.uint8)
    return scaled


def centred(clips: U8) -> U8:
    """The ``clips`` (clips, frames, bands) with each one's energy around its middle frame; its first or last frame fills the
    gap. Recordings of a word begin at any moment, and small networks do not see through that."""
    energy = np.stack([(10 ** ((each / STEPS + FLOOR) / 10)).sum(axis=1) for each in clips])
    frames = np.arange(clips.shape[1])
    shift = np.rint((energy * frames).sum(axis=1) / energy.sum(axis=1) - frames.mean()).astype(int)
    rows = np.clip(frames + shift[:, None], 0, len(frames) - 1)
    moved: U8 = clips[np.arange(len(clips))[:, None], rows]
    return moved


def _bands() -> NDArray[np.float64]:
    """The weight of each frequency in each band, (BANDS, frequencies)."""
    low, high = (2595 * np.log10(1 + each / 700) for each in (LOWEST, HIGHEST))
    corner = 700 * (10 ** (np.linspace(low, high, BANDS + 2) / 2595) - 1)
    frequency = np.fft.rfftfreq(FFT, 1 / RATE)
    rising = (frequency - corner[:-2, None]) / (corner[1:-1] - corner[:-2])[:, None]
    falling = (corner[2:, None] - frequency) / (corner[2:] - corner[1:-1])[:, None]
    weights: NDArray[np.float64] = np.maximum(0, np.minimum(rising, falling))
    return weights


def second_of(source: str, data: bytes) -> NDArray[np.float64]:
    """The first second in the WAV file ``data``, within -1 to 1, with silence after a shorter one.

    Raises DataError for anything but 16-bit mono at RATE.
    """
    try:
        with wave.open(io.BytesIO(data)) as file:
            form = file.getframerate(), file.getnchannels(), file.getsampwidth()
            samples = np.frombuffer(file.readframes(RATE), "<i2") if form == (RATE, 1, 2) else np.empty(0)
    except (wave.Error, EOFError, ValueError) as error:
        raise DataError(f"{source} is no WAV file ({plain(error)}).") from error
    if form != (RATE, 1, 2):
        raise DataError(
            f"{source} has {form[0]:,} Hz, {form[1]} channels and {8 * form[2]} bits. Give 16-bit mono of {RATE:,} Hz."
        )
    sound = np.zeros(RATE)
    sound[: len(samples)] = samples / 32768
    return sound
