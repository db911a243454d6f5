"""Vendors' register descriptions (CMSIS-SVD), as far as packages carry them: STM32F4's in the source distribution of cmsis-svd
0.4, Nordic's in pyocd."""

import io
import os
import tarfile
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.util import find_spec
from zipfile import ZipFile

import pytest


@dataclass(frozen=True)
class Register:
    """``fields`` are masks."""

    offset: int
    fields: dict[str, int]


@dataclass(frozen=True)
class Peripheral:
    base: int
    interrupts: tuple[int, ...]
    registers: dict[str, Register]


def _text(name: str) -> bytes:
    """A file of pyocd's, or of cmsis-svd's source distribution, whose 800 MB need not be installed; skips without."""
    if name.startswith("nrf"):
        if find_spec("pyocd") is None:
            pytest.skip("needs pyocd's SVD files: pip install 'tinyfl[flash]'")
        with ZipFile(io.BytesIO(resources.files("pyocd.debug.svd").joinpath("svd_data.zip").read_bytes())) as files:
            return files.read(name)
    archive = os.environ.get("TINYFL_SVD")
    if not archive:
        pytest.skip("needs TINYFL_SVD=cmsis-svd-0.4.tar.gz, from: pip download --no-deps --no-binary :all: cmsis-svd==0.4")
    return _st(archive)[name]


@cache
def _st(archive: str) -> dict[str, bytes]:
    """ST's files, in one pass through the archive, which takes seconds to unpack."""
    read = {}
    with tarfile.open(archive, "r|gz") as files:
        for member in files:
            folder, _, name = member.name.rpartition("/")
            if folder == "cmsis-svd-0.4/cmsis_svd/data/STMicro" and name.endswith(".svd"):
                content = files.extractfile(member)
                assert content is not None
                read[name] = content.read()
    return read


def _number(element: ElementTree.Element, *tags: str) -> int | None:
    for tag in tags:
        if (text := element.findtext(tag)) is not None:
            return int(text, 0)
    return None


def _mask(field: ElementTree.Element) -> int:
    if bits := field.findtext("bitRange"):
        high, low = map(int, bits.strip("[]").split(":"))
    else:
        low = _number(field, "bitOffset", "lsb") or 0
        high = _number(field, "msb") or low + (_number(field, "bitWidth") or 1) - 1
    return (1 << high + 1) - (1 << low)


def _register(element: ElementTree.Element) -> Register:
    fields = {str(field.findtext("name")): _mask(field) for field in element.iter("field")}
    return Register(_number(element, "addressOffset") or 0, fields)


def _registers(parent: ElementTree.Element, at: int = 0, prefix: str = "") -> dict[str, Register]:
    """Registers by name; one in a cluster as CLUSTER_NAME, one of an array as NAME0 and so on."""
    found: dict[str, Register] = {}
    for element in parent:
        if element.tag not in ("register", "cluster"):
            continue
        count, step = _number(element, "dim") or 1, _number(element, "dimIncrement") or 0
        pattern = str(element.findtext("name"))
        for i in range(count):
            name = prefix + pattern.replace("[%s]", str(i)).replace("%s", str(i))
            if element.tag == "cluster":
                found |= _registers(element, at + (_number(element, "addressOffset") or 0) + i * step, f"{name}_")
            else:
                made = _register(element)
                found[name] = Register(at + made.offset + i * step, made.fields)
    return found


@cache
def peripherals(name: str) -> dict[str, Peripheral]:
    """All that the SVD file ``name`` describes."""
    elements = {str(each.findtext("name")): each for each in ElementTree.fromstring(_text(name)).iter("peripheral")}
    found = {}
    for key, element in elements.items():
        original = elements[element.get("derivedFrom", key)]
        own = element.find("registers")
        registers = own if own is not None else original.find("registers")
        interrupts = tuple(_number(each, "value") or 0 for each in element.findall("interrupt"))
        made = _registers(registers) if registers is not None else {}
        found[key] = Peripheral(_number(element, "baseAddress") or 0, interrupts, made)
    return found
