"""Images of firmware, read back by parsers that others wrote: objcopy, intelhex, Adafruit's uf2conv."""

import io
import json
import struct
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyfl.building import boards, images
from tinyfl.building.build import build
from tinyfl.errors import BuildError

RP2040 = 0xE48BFF56
PIECES = {"origin": st.integers(0, (1 << 32) - (1 << 18)), "image": st.binary(min_size=1, max_size=3000)}


@pytest.fixture(scope="module")
def pico(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for module in ("ziglang", "elftools"):
        if find_spec(module) is None:
            pytest.skip(f"needs {module}: pip install 'tinyfl[firmware]'")
    return build(boards.load("pico"), tmp_path_factory.mktemp("pico")).elf


def parsed_hex(text: str) -> dict[int, int]:
    intelhex = pytest.importorskip("intelhex")
    return dict(intelhex.IntelHex(io.StringIO(text)).todict())


def objcopy(elf: Path, format: str, out: Path) -> bytes:
    subprocess.run([sys.executable, "-m", "ziglang", "objcopy", "-O", format, elf, out], check=True)
    return out.read_bytes()


@given(**PIECES)
def test_hex_says_which_byte_is_where(origin: int, image: bytes) -> None:
    assert parsed_hex(images.intel_hex(origin, image)) == {origin + i: byte for i, byte in enumerate(image)}


@given(**PIECES)
def test_uf2_is_whole_pages_in_order_that_hold_the_image(origin: int, image: bytes) -> None:
    file = images.uf2(origin, image, RP2040)
    count, rest = divmod(len(file), 512)
    assert rest == 0
    held = b""
    for number in range(count):
        block = file[512 * number : 512 * (number + 1)]
        assert struct.unpack("<3I", block[:12]) == (0x0A324655, 0x9E5D5157, 0x2000)
        assert struct.unpack("<5I", block[12:32]) == ((origin & ~0xFF) + 256 * number, 256, number, count, RP2040)
        assert block[288:] == bytes(220) + struct.pack("<I", 0x0AB16F30)
        held += block[32:288]
    before = origin % 256
    assert held == b"\xff" * before + image + b"\xff" * (len(held) - before - len(image))
    assert len(held) - before - len(image) < 256


def test_the_image_of_the_pico_is_what_objcopy_makes_of_it(pico: Path, tmp_path: Path) -> None:
    origin, image = images.flat(pico)
    assert origin == 0x10000000
    theirs = objcopy(pico, "binary", tmp_path / "theirs.bin")
    gaps = [i for i, (a, b) in enumerate(zip(image, theirs, strict=True)) if a != b]
    assert all((image[i], theirs[i]) == (0xFF, 0) for i in gaps)
    assert len(gaps) < 16  # between two sections, which both fill as they like
    (tmp_path / "theirs.hex").write_bytes(objcopy(pico, "hex", tmp_path / "theirs.hex"))
    ours, of_objcopy = (parsed_hex(text) for text in (images.intel_hex(origin, image), (tmp_path / "theirs.hex").read_text()))
    assert {at: ours[at] for at in of_objcopy} == of_objcopy


def test_the_uf2_of_the_pico_is_read_by_uf2conv(pico: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    uf2conv = pytest.importorskip("adafruit_uf2.uf2conv")
    images.write(pico, "uf2", tmp_path / "pico.uf2", family=RP2040)
    file, (origin, image) = (tmp_path / "pico.uf2").read_bytes(), images.flat(pico)
    assert uf2conv.is_uf2(file)
    assert uf2conv.convert_from_uf2(file) == image + b"\xff" * (-len(image) % 256)
    assert uf2conv.appstartaddr == origin
    families = {family["short_name"]: int(family["id"], 0) for family in _families(uf2conv)}
    assert families["RP2040"] == RP2040
    assert "All block flag values consistent" in capsys.readouterr().out


def _families(uf2conv: Any) -> Any:
    return json.loads(Path(uf2conv.__file__).with_name("uf2families.json").read_text())


def test_each_format_is_written_as_it_is_made(pico: Path, tmp_path: Path) -> None:
    origin, image = images.flat(pico)
    expected = {"bin": image, "hex": images.intel_hex(origin, image).encode(), "uf2": images.uf2(origin, image, RP2040)}
    for format in ("bin", "hex", "uf2"):
        images.write(pico, format, tmp_path / "image", family=RP2040)
        assert (tmp_path / "image").read_bytes() == expected[format]


def test_what_is_no_firmware_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="is not a firmware ELF"):
        images.flat(tmp_path / "missing.elf")
    (tmp_path / "text.elf").write_text("hello")
    with pytest.raises(BuildError, match="is not a firmware ELF"):
        images.flat(tmp_path / "text.elf")


def test_what_lies_too_far_apart_is_no_image(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(images, "_segments", lambda elf: [(0, b"a"), (1 << 31, b"b")])
    with pytest.raises(BuildError, match="2,147,483,649 bytes"):
        images.flat(tmp_path)
    monkeypatch.setattr(images, "_segments", lambda elf: [(0x100, b"ab"), (0x108, b"c")])
    assert images.flat(tmp_path) == (0x100, b"ab\xff\xff\xff\xff\xff\xffc")
