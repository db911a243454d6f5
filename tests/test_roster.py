"""Rosters: what a fleet's file may say, and what is refused."""

from pathlib import Path
from typing import Any

import pytest

from tinyfl.config import resolve
from tinyfl.config.roster import AUTO_BAUD, Part, read_parts
from tinyfl.errors import ConfigError

MIXED = """
task = "sine"
network = "mlp-8"
rounds = 3

[[fleet]]
native = 100

[[fleet]]
board = "mps2-an386"
count = 4
engine = "unicorn"

[[fleet]]
ports = ["/dev/ttyACM0", "socket://127.0.0.1:5001"]
ids = ["0000000000000007"]
"""


def test_a_file_names_its_devices_and_survives_the_run_directory(tmp_path: Path) -> None:
    (tmp_path / "fleet.toml").write_text(MIXED)
    config = resolve({}, tmp_path / "fleet.toml")
    assert config.fleet == (
        Part(native=100),
        Part(board="mps2-an386", count=4, engine="unicorn"),
        Part(ports=("/dev/ttyACM0", "socket://127.0.0.1:5001"), ids=("0000000000000007",)),
    )
    assert (config.devices, config.minimum) == (105, 1)
    (tmp_path / "config.toml").write_text(config.to_toml())
    assert resolve({}, tmp_path / "config.toml") == config


def test_where_the_devices_are_does_not_change_the_runs_hash() -> None:
    simulated = resolve({"task": "sine", "devices": 5})
    boards = resolve({"task": "sine", "fleet": [{"board": "mps2-an386", "count": 5}], "minimum": 3, "seconds": 9.0})
    assert boards.sha256() == simulated.sha256()
    assert boards.sha256() != resolve({"task": "sine", "devices": 6}).sha256()
    assert simulated.minimum == 0
    resumed_on_boards = resolve({**vars(simulated), "fleet": [{"board": "mps2-an386", "count": 5}]})
    assert resumed_on_boards.minimum == 1


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({}, "exactly one"),
        ({"native": 1, "board": "x"}, "exactly one"),
        ({"native": 0}, "no device"),
        ({"native": "many"}, "not int"),
        ({"native": True}, "not int"),
        ({"native": 3, "count": 2}, "native has no count"),
        ({"board": "mps2-an386", "count": 0}, "no device"),
        ({"board": "mps2-an386", "engine": "renode"}, "no engine is called 'renode'"),
        ({"board": "mps2-an386", "toolchain": "iar"}, "no toolchain is called 'iar'"),
        ({"board": "mps2-an386", "ids": ["a"]}, "board has no ids"),
        ({"ports": []}, "ports in .* is empty"),
        ({"ports": ["/dev/a", "/dev/a"]}, "more than once"),
        ({"ports": ["/dev/a"], "ids": ["0b", "0b"]}, "more than once"),
        ({"ports": [1]}, "lists of texts"),
        ({"ports": ["/dev/a\0"]}, "cannot be printed"),
        ({"ports": ["/dev/a"], "ids": ["7"]}, "no board's id"),
        ({"ports": ["/dev/a"], "ids": ["AB", "ab"]}, "more than once"),
        ({"ports": ["/dev/a"], "baud": 50}, "baud .* is 50, not 300"),
        ({"ports": ["/dev/a"], "baud": -1}, "baud .* is -1, not 300"),
        ({"ports": ["/dev/a"], "baud": "fast"}, "baud .* is 'fast', not int"),
        ({"native": 3, "baud": 9600}, "native has no baud"),
        ({"ports": ["/dev/a"], "shared": 1}, "shared .* is 1, not bool"),
        ({"board": "mps2-an386", "shared": True}, "board has no shared"),
        ({"wires": 3}, "'wires', which tinyfl does not know"),
        ("native", "not a table"),
    ],
)
def test_what_is_no_part_is_refused(part: Any, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_parts([part])


def test_a_part_may_raise_its_baud_rate_and_is_written_as_it_was_read() -> None:
    table = {"ports": ["/dev/a"], "baud": "auto"}
    (part,) = read_parts([table])
    assert part.baud == AUTO_BAUD and part.to_toml() == {"ports": ("/dev/a",), "baud": "auto"}
    assert read_parts([part.to_toml()]) == (part,)


def test_a_part_may_share_a_line_and_is_written_as_it_was_read() -> None:
    (part,) = read_parts([{"ports": ["/dev/a"], "shared": True}])
    assert part.shared and read_parts([part.to_toml()]) == (part,)
    assert "shared" not in read_parts([{"ports": ["/dev/a"], "shared": False}])[0].to_toml()


def test_a_port_or_a_board_is_in_a_fleet_once_whatever_its_names_and_parts(tmp_path: Path) -> None:
    (tmp_path / "by-id").symlink_to("/dev/ttyUSB7")
    with pytest.raises(ConfigError, match=r"has '/dev/ttyUSB7' more than once, which is '.*by-id' too"):
        read_parts([{"ports": [str(tmp_path / "by-id"), "/dev/ttyUSB7"]}])
    for one, other in (({"ports": ["/dev/a"]}, {"ports": ["/dev/./a"]}),
                       ({"ports": ["/dev/a"], "ids": ["AB"]}, {"ports": ["/dev/b"], "ids": ["ab"]})):  # fmt: skip
        with pytest.raises(ConfigError, match="more than once"):
            read_parts([one, other])
    assert len(read_parts([{"ports": ["socket://h:1"]}, {"ports": ["socket://h:2"]}])) == 2


def test_a_fleet_that_is_no_list_or_has_another_size_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"own \[\[fleet\]\]"):
        read_parts({"native": 3})
    with pytest.raises(ConfigError, match="7 devices, but the fleet's parts have 5"):
        resolve({"task": "sine", "devices": 7, "fleet": [{"native": 5}]})
