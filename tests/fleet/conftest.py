import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

for folder in ("firmware", "link"):  # the boards of tests/link serve here too
    sys.path.insert(0, str(Path(__file__).parents[1] / folder))

from desk import Desk  # noqa: E402


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    """A desk with nothing on it; no port of the machine itself is seen, and no probe."""
    from serial.tools import list_ports

    desk = Desk(tmp_path / "dev")
    monkeypatch.setattr(list_ports, "comports", desk.comports)
    monkeypatch.setattr("tinyfl.devices.connected.USB_DEVICES", tmp_path / "sys")
    monkeypatch.setattr("tinyfl.devices.connected.find_tool", lambda name: None)
    monkeypatch.chdir(tmp_path)
    try:
        yield desk
    finally:
        desk.clear()
