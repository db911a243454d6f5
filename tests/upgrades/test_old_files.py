"""Files that users wrote by the docs of older versions, and those versions' board manifests: all are read."""

import tomllib
from pathlib import Path

import pytest
from steps import FILES, names, unpacked

from tinyfl.building import boards
from tinyfl.config import Config, read_settings, resolve
from tinyfl.devices.inventory import read_inventory
from tinyfl.flower.allowed import read_allowed
from tinyfl.simulators.faults.scenario import load_scenario
from tinyfl.studies.file import read_study

SETTINGS = {"fleet.toml", "fleet-2.toml", "native.toml", "faulty.toml", "own.toml", "imu.toml", "flair.toml"}
STUDIES = {"gestures.toml", "cohorts.toml", "machines.toml"}
OF_OTHERS = {"config.toml", "pyproject.toml"}
"""Flower's, and a package's."""
TOY = "port: there is no port 'toy' in firmware/ports (is 'toy')"
"""Of the chip of one's own in docs/boards.md, whose port is another file."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpacked(FILES, tmp_path_factory.mktemp("files"))


@pytest.mark.parametrize("name", [name for name in names(FILES) if name.endswith(".toml")])
def test_a_file_of_an_older_version_is_read(name: str, folder: Path) -> None:
    file = folder / name
    if file.parent.name == "boards":
        assert boards.check(file)[1] == ([TOY] if file.stem == "toy" else [])
    elif file.name in SETTINGS:
        read_as_it_says(file)
    elif file.name in STUDIES:
        assert read_study(file).axes
    elif file.name == "devices.toml":
        table = tomllib.loads(file.read_text())["device"]
        assert [(each.id, each.board, list(each.tags)) for each in read_inventory(file)] == [
            (each["id"], each["board"], each.get("tags", [])) for each in table
        ]
    elif file.name == "allowed.toml":
        assert read_allowed(file).apps
    elif file.name == "faults.toml":
        assert load_scenario(file, 8)
    else:
        assert file.name in OF_OTHERS


def read_as_it_says(file: Path) -> None:
    """Reads settings, each of which has the value that stands in the file."""
    config, table = resolve({}, file), read_settings(file)
    assert isinstance(config, Config)
    fleet, algorithm = table.pop("fleet", []), table.pop("algorithm", config.algorithm)
    assert {key: getattr(config, key) for key in table} == {
        key: tuple(value) if isinstance(value, list) else value for key, value in table.items()
    }
    assert [part.to_toml() for part in config.fleet] == [
        {key: tuple(value) if isinstance(value, list) else value for key, value in part.items()} for part in fleet
    ]
    assert config.algorithm == (algorithm["name"] if isinstance(algorithm, dict) else algorithm)


def test_former_names_in_a_file_are_those_of_today(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('task = "digits"\nrobust = "median"\nnodes = "devices"\ninner_lr = 0.5\n')
    config = resolve({}, file)
    assert (config.aggregator, config.rate) == ("median", 0.5)
