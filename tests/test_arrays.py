"""Files: what is read is what was written or refused, and what is written is whole."""

import errno
import io
import os
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tinyfl.errors import DataError, RunError
from tinyfl.system import files
from tinyfl.system.files import read_array, read_arrays, write_whole

ARRAYS = {
    "x": np.arange(40, dtype=np.float32).reshape(10, 4),
    "y": np.arange(10),
    "device": np.array(["a", "b"] * 5),
}


def npy(descr: str, shape: tuple[int, ...], data: bytes) -> bytes:
    """An .npy file that may say what is not so."""
    file = io.BytesIO()
    header: dict[str, Any] = {"descr": descr, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue() + data


def zipped(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return path


@settings(max_examples=40)
@given(
    hnp.arrays(
        st.sampled_from([np.dtype(d) for d in ("<f4", ">f4", "<f8", ">f8", "|u1", "<i8", ">i2", "|b1", "<U3", ">U3", "|S2")]),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
    ),
    st.booleans(),
)
def test_an_array_in_any_byte_order_and_layout_is_read_as_it_is(
    tmp_path_factory: pytest.TempPathFactory, array: np.ndarray, by_columns: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.npz"
    np.savez(path, a=np.asfortranarray(array) if by_columns and array.ndim else array)
    read = read_arrays(path, ("a",))["a"]
    assert np.array_equal(read, array) or (array.dtype.kind == "f" and np.array_equal(read, array, equal_nan=True))
    assert read.shape == array.shape and read.dtype.isnative and read.flags.c_contiguous


def damaged(whole: bytes, chance: random.Random) -> bytes:
    data = bytearray(whole)
    kind = chance.randrange(4)
    if kind == 0:
        return bytes(data[: chance.randrange(len(data))])
    if kind == 1:
        at = chance.randrange(len(data))
        data[at:at] = chance.randbytes(chance.randint(1, 9))
    elif kind == 2:  # in the zip's directory, where most of what zipfile raises comes from
        at = max(data.rfind(b"PK\1\2", 0, chance.randrange(len(data))), 0)
        data[min(at + chance.randrange(46), len(data) - 1)] = chance.randrange(256)
    else:
        for _ in range(chance.randint(1, 3)):
            data[chance.randrange(len(data))] = chance.randrange(256)
    return bytes(data)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.filterwarnings("ignore")
def test_a_damaged_file_is_refused_or_read_right(tmp_path: Path, save: Callable[..., None]) -> None:
    path, chance, refused = tmp_path / "own.npz", random.Random(7), 0
    save(path, **ARRAYS)
    whole = path.read_bytes()
    for _ in range(400):
        path.write_bytes(damaged(whole, chance))
        try:
            read = read_arrays(path, tuple(ARRAYS))
        except DataError as error:
            assert str(path) in str(error)
            refused += 1
        else:
            assert all(np.array_equal(read[name], ARRAYS[name]) for name in ARRAYS)
    assert refused > 200


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (npy("<f4", (1 << 40,), bytes(16)), "takes 4,398,046,511,104 bytes, but the file has 16"),
        (npy("<f4", (3,), bytes(16)), "takes 12 bytes, but the file has 16"),
        (npy("<f4", (-4,), b""), "but numbers or text are needed"),
        (npy("|O", (1,), b"cos\nsystem\n(S'touch PWNED'\ntR."), "holds Python objects"),
        (npy("<M8[s]", (1,), bytes(8)), "but numbers or text are needed"),
        (npy("<U0", (1 << 60,), b""), "but numbers or text are needed"),
        (b"\x93NUMPY\x01\x00\x10\x00" + b"(" * 16, "is not an .npz file of plain arrays"),
        (b"\x93NUMPY\x09\x00", "is not an .npz file of plain arrays"),
        (b"", "is not an .npz file of plain arrays"),
    ],
)
def test_an_array_that_lies_is_refused_before_memory_is_taken(tmp_path: Path, content: bytes, says: str) -> None:
    with pytest.raises(DataError, match=says.replace("(", r"\(")):
        read_arrays(zipped(tmp_path / "own.npz", x=content), ("x",))
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(DataError, match=r"no \.npy file of a plain array|holds Python objects"):
        read_array(tmp_path / "x.npy")


def test_an_array_that_nobody_asked_for_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spare = npy("<f4", (1 << 20,), bytes(4 << 20))
    path = zipped(tmp_path / "own.npz", x=npy("<f4", (4,), bytes(16)), spare=spare, broken=b"no array")
    monkeypatch.setattr(files, "memory", lambda: 1 << 10)
    assert read_arrays(path, ("x",), ("absent",)).keys() == {"x"}
    with pytest.raises(DataError, match=r"too large for this machine's memory \(it takes 4,194,304 bytes; 240 may be used"):
        read_arrays(path, ("x",), ("spare",))
    with pytest.raises(DataError, match=r"lacks the array 'y'; it has broken, spare, x\."):
        read_arrays(path, ("x", "y"))


@pytest.mark.usefixtures("tensorflow")
def test_a_keras_file_that_unpacks_to_more_than_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tinyfl.networks.keras import from_keras

    with zipfile.ZipFile(tmp_path / "m.keras", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("model.weights.h5", bytes(1 << 20))
    monkeypatch.setattr(files, "memory", lambda: 1 << 20)
    with pytest.raises(DataError, match=r"m\.keras cannot be read as a Keras model \(it unpacks to 1,048,576 bytes"):
        from_keras(tmp_path / "m.keras")


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.npz")
    for path in (tmp_path / "pipe.npz", tmp_path, tmp_path / "absent.npz"):
        with pytest.raises(DataError, match="no such file"):
            read_arrays(path, ("x",))


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_on_a_full_disk_the_old_file_stays_and_no_part_of_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "state.npz"
    write_whole(path, b"old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(*((os, "fsync") if call == "fsync" else (Path, "replace")), full)
        with pytest.raises(RunError, match=r"state\.npz cannot be written \(\[Errno 28\] No space left.*\)\. Make room\."):
            write_whole(path, b"new", "Make room.")
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == {"state.npz": b"old"}
