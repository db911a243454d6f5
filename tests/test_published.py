"""Published data sets: their formats are read as they are downloaded, and a checksum is compared or said not to be known."""

import hashlib
import io
import json
import tarfile
import wave
import zipfile
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from tinyfl.cli import app
from tinyfl.data import published
from tinyfl.data.arff import Arff
from tinyfl.data.logmel import BANDS, FRAMES, RATE, centred, features, second_of
from tinyfl.errors import DataError, TinyflError
from tinyfl.registry import TASKS
from tinyfl.tasks import activity, keywords, presence

ARFF = """% a comment
@relation activity
@attribute "UNIQUE_ID" numeric
@attribute user {1,2}
@attribute X0 numeric
@attribute 'XAVG' numeric
@attribute class { Walking , Jogging, "Sitting" }
@data
1,1,0.5,?,Walking
2,2,-1e-1,3,"Sitting"
"""
ROOM = [
    "Date,Time," + ",".join(f"S{n}_{what}" for what in presence.SENSORS for n in range(1, 5)) + ",S5_CO2,Room_Occupancy_Count"
]
OFFICE = '"date","Temperature","Humidity","Light","CO2","HumidityRatio","Occupancy"\n'


def wav(samples: np.ndarray, rate: int = RATE) -> bytes:
    held = io.BytesIO()
    with wave.open(held, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())
    return held.getvalue()


def tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def cli(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["data", *words])
    if isinstance(result.exception, TinyflError):
        return result.exception.exit_code, str(result.exception)
    return result.exit_code, result.stdout


def test_every_published_set_says_what_it_is_for_where_it_comes_from_and_under_which_licence() -> None:
    code, text = cli("list", "--json")
    assert code == 0
    for each in json.loads(text)["sets"]:
        assert each["task"] in TASKS
        assert each["url"].startswith("https://")
        assert each["licence"]
        assert bool(each["digest"]) == bool(each["digest_of"])
    shown = cli("list")[1]
    assert "unchecked" in shown
    assert all(each["file"] in shown and each["url"] in shown for each in json.loads(text)["sets"])


def test_a_file_with_the_published_checksum_is_verified_and_another_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "set.zip"
    path.write_bytes(b"as it was published")
    entry = replace(published.PUBLISHED[0], file="set.zip", digest=hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setattr(published, "PUBLISHED", (entry,))
    assert json.loads(cli("verify", str(path), "--json")[1])["status"] == "verified"
    path.write_bytes(b"as it was broken off")
    code, text = cli("verify", str(path))
    assert code == DataError.exit_code
    assert f"Download it again: {entry.url}" in text


@pytest.mark.parametrize("name", ["WISDM_ar_latest.tar.gz", "nobody-knows.zip"])
def test_a_file_without_a_published_checksum_is_unchecked(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"anything")
    assert json.loads(cli("verify", str(tmp_path / name), "--json")[1])["status"] == "unchecked"


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    for words in (
        ("verify", "no.zip"),
        ("convert", "activity", "no.zip", "out.npz"),
        ("convert", "digits", "no.zip", "out.npz"),
    ):
        assert cli(*words)[0] in (2, 3)


def test_wisdm_is_read_from_its_archive_its_folder_and_its_file(tmp_path: Path) -> None:
    name = "WISDM_ar_v1.1_transformed.arff"
    (tmp_path / name).write_text(ARFF)
    packed = tar(tmp_path / "w.tar.gz", {f"WISDM_ar_v1.1/{name}": ARFF.encode(), "WISDM_ar_v1.1/WISDM_raw.txt": b"33,Jogging"})
    for path in (tmp_path / name, packed, tmp_path):
        found = activity.arrays(path)
        np.testing.assert_array_equal(found["X"], np.float32([[0.5, np.nan], [-0.1, 3]]))
        assert found["activities"][found["y"]].tolist() == ["Walking", "Sitting"]
        assert found["user"].tolist() == [1, 2]
        assert found["columns"].tolist() == ["X0", "XAVG"]


def test_both_sets_of_presence_are_read_as_they_are_downloaded(tmp_path: Path) -> None:
    start = datetime(2017, 12, 22, 10, 49, 41, tzinfo=UTC)
    rows = [
        f"{(start + timedelta(seconds=30 * n)):%Y/%m/%d,%H:%M:%S},"
        + ",".join(str(n + k / 100) for k in range(12))
        + f",390,{n % 3}"
        for n in range(4)
    ]
    (tmp_path / "Occupancy_Estimation.csv").write_text("\n".join([*ROOM, *rows]))
    found = presence.arrays(tmp_path / "Occupancy_Estimation.csv")
    assert found["time"].tolist() == [int(start.timestamp()) + 30 * n for n in range(4)]
    assert found["count"].tolist() == [0, 1, 2, 0]
    np.testing.assert_allclose(found["X"][3], 3 + np.arange(12) / 100, rtol=1e-6)
    with zipfile.ZipFile(tmp_path / "office.zip", "w") as archive:
        archive.writestr("datatest.txt", OFFICE + '"140","2015-02-02 14:19:00",23.7,26.2,585.2,749.2,0.0048,1\n')
        archive.writestr("datatraining.txt", OFFICE + '"1","2015-02-04 17:51:00",23.18,27.2,426,721.25,0.0047,0\n')
    found = presence.arrays(tmp_path / "office.zip")
    assert found["y"].tolist() == [1, 0]
    assert found["X"].shape == (2, 5)


def test_clips_are_read_with_their_words_and_speakers(tmp_path: Path) -> None:
    sound = wav(np.zeros(9000))
    names = [
        "yes/0a2b400e_nohash_0.wav", "yes/0a2b400e_nohash_3.wav", "_unknown_/bed_022cd682_nohash_1.wav",
        "_silence_/white_1.wav", "_background_noise_/pink.wav", "README.md",
    ]  # fmt: skip
    found = keywords.arrays(tar(tmp_path / "s.tar.gz", dict.fromkeys(names, sound)))
    assert found["words"][found["word"]].tolist() == ["yes", "yes", "bed", "_silence_"]
    assert found["speakers"][found["speaker"]].tolist() == ["0a2b400e", "0a2b400e", "022cd682", ""]
    assert found["take"].tolist() == [0, 3, 1, 0]
    assert found["logmel"].shape == (4, FRAMES, BANDS) == (4, 49, 40)
    assert not found["logmel"].any()  # silence is at the lower bound
    code, _ = cli("convert", "keywords", str(tmp_path / "s.tar.gz"), str(tmp_path / "s.npz"))
    assert code == 0
    np.testing.assert_array_equal(np.load(tmp_path / "s.npz")["word"], found["word"])


def test_features_are_those_of_a_plain_computation() -> None:
    rng = np.random.default_rng(0)
    sound = 0.3 * np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE) + 0.01 * rng.normal(size=RATE)
    found = features(sound)
    mel = np.linspace(*(2595 * np.log10(1 + each / 700) for each in (20, 7600)), 42)
    corner = [700 * (10 ** (each / 2595) - 1) for each in mel]
    for frame in (0, 17, 48):
        taper = np.array([0.5 - 0.5 * np.cos(2 * np.pi * n / 480) for n in range(480)])
        part = sound[320 * frame : 320 * frame + 480] * taper
        for band in (0, 9, 20, 39):
            energy = 0.0
            for k in range(257):
                hertz = k * 16000 / 512
                low, middle, high = corner[band : band + 3]
                weight = (hertz - low) / (middle - low) if hertz <= middle else (high - hertz) / (high - middle)
                if weight > 0:
                    spectrum = np.sum(part * np.exp(-2j * np.pi * k * np.arange(480) / 512))
                    energy += weight * abs(spectrum) ** 2 / taper.sum() ** 2
            decibels = 10 * np.log10(max(energy, 1e-12))
            assert found[frame, band] == np.clip(np.rint((decibels + 100) * 2.5), 0, 255)
    assert found[20].argmax() == np.argmin(np.abs(np.array(corner[1:-1]) - 1000))


def test_the_same_sound_earlier_or_later_has_the_same_centred_features() -> None:
    sound = np.zeros(RATE)
    sound[5000:9000] = 0.5 * np.random.default_rng(0).normal(size=4000).clip(-1, 1)
    clips = np.stack([features(np.roll(sound, 320 * steps)) for steps in (0, 5, -9)])
    assert not np.array_equal(clips[0], clips[1])
    for each in centred(clips)[1:]:
        np.testing.assert_array_equal(each[15:35], centred(clips)[0][15:35])


@pytest.mark.parametrize(
    ("reader", "data", "says"),
    [
        (activity.arrays, b"@attribute user {1}\n@data\n1,2\n", "row 0 has 2 values"),
        (activity.arrays, b"nothing", "is no ARFF file"),
        (activity.arrays, b"@attribute user {1}\n@attribute X0 numeric\n@data\n1,2\n", "has no attribute class"),
        (activity.arrays, ARFF.replace("-1e-1", "much").encode(), "a value that is no number"),
        (activity.arrays, ARFF.replace("1,1,", "1,Ann,").encode(), "a user that is no number"),
        (presence.arrays, b"", "has neither Occupancy_Estimation.csv"),
        (presence.arrays, b"a,b\n1,2,3,4\n", "more or fewer values"),
        (presence.arrays, b"a,b\n1,2\n", "other columns or values"),
        (keywords.arrays, b"RIFF", "has no clips"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, reader: Callable[[Path], Any], data: bytes, says: str) -> None:
    (tmp_path / "a.file").write_bytes(data)
    with pytest.raises(DataError, match=says):
        reader(tmp_path / "a.file")


def test_sound_of_another_form_is_refused() -> None:
    with pytest.raises(DataError, match="8,000 Hz, 1 channels and 16 bits"):
        second_of("a.wav", wav(np.zeros(10), rate=8000))
    with pytest.raises(DataError, match="is no WAV file"):
        second_of("a.wav", b"RIFF0000WAVE")


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=300) | st.text(alphabet='@attribue{}",?\n12 daX%', max_size=200).map(str.encode))
def test_no_file_whatever_it_holds_ends_a_reader_in_anything_but_a_refusal(tmp_path_factory: Any, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "hostile"
    for start in (b"", b"PK\x03\x04", ARFF.encode()[:150], OFFICE.encode()):
        path.write_bytes(start + data)
        for reader in (activity.arrays, presence.arrays, keywords.arrays):
            try:
                reader(path)
            except DataError:
                continue
    assert Arff.read("a text", ARFF).texts("user").tolist() == ["1", "2"]
