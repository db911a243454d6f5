"""Sites of a test: gateways with files of their own in this process, and a grid that keeps every byte that goes over it."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from flaky import FlakyGrid
from flwr.app import Error, Message, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto

from tinyfl.config.roster import Part
from tinyfl.deployment.gateway import Gateway
from tinyfl.fleets.assembly import Site, opened
from tinyfl.flower.allowed import read_allowed
from tinyfl.flower.server_app import over_nodes
from tinyfl.flower.settings import to_run_config
from tinyfl.flower.sites import load_over
from tinyfl.simulation import simulate
from tinyfl.simulation.result import Run


@dataclass
class Federation:
    """A SuperLink of this process with a gateway for each file, or without one for ``Path()``. ``asked`` and ``said`` have each
    message and each reply in bytes, ``told`` the gateways' logs, ``notes`` what the coordinator says while it waits.
    ``native``: each also has simulated devices by number; ``restarts``: each starts anew before every message; ``lie`` changes
    replies."""

    files: Mapping[str, Path]
    shares: bool = False
    native: int = 0
    restarts: bool = False
    lie: Callable[[str, RecordDict], None] = lambda name, reply: None
    asked: list[bytes] = field(default_factory=list)
    said: list[bytes] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def run(self, out: Path, change: Callable[[str, Message], None] | None = None, **options: Any) -> Run:
        """The run of these sites with ``options`` at the coordinator."""
        return self._run(change, out=out, **options)

    def resume(self, out: Path, **options: Any) -> Run:
        """The run in ``out``, gone on with."""
        return self._run(None, resume=out, **options)

    def _run(self, change: Callable[[str, Message], None] | None, **options: Any) -> Run:
        options = {"minimum": 1, "nodes": str(len(self.files)), **options}
        run_config = to_run_config({key: value for key, value in options.items() if key not in ("out", "resume", "algorithm")})
        with ExitStack() as stack:
            sites = {
                name: stack.enter_context(opened([Part(native=self.native)] if self.native else [], i * self.native))
                for i, name in enumerate(self.files)
            }
            gateways = {name: self._gateway(name, sites[name]) for name in self.files}

            def answer(name: str, message: Message) -> RecordDict | Error:
                if change:
                    change(name, message)
                if self.restarts:
                    gateways[name].close()
                    gateways[name] = self._gateway(name, sites[name])
                self.asked.append(recorddict_to_proto(message.content).SerializeToString())
                reply = gateways[name](message.metadata.message_type, message.content, run_config)
                if isinstance(reply, RecordDict):
                    reply = recorddict_from_proto(recorddict_to_proto(reply))
                    self.lie(name, reply)
                    self.said.append(recorddict_to_proto(reply).SerializeToString())
                return reply

            numbers = {name: 7 + 13 * (len(gateways) - i) for i, name in enumerate(gateways)}
            grid = FlakyGrid({numbers[name]: partial(answer, name) for name in gateways})
            stack.callback(lambda: [gateway.close() for gateway in gateways.values()])
            return simulate(
                over=partial(over_nodes, grid), load=partial(load_over, grid, within=0.5, on_note=self.notes.append), **options
            )

    def _gateway(self, name: str, site: Site) -> Gateway:
        path = str(self.files[name]) if self.files[name] != Path() else ""
        return Gateway(name, site, read_allowed(), path, lambda line: self.told.append(f"{name}: {line}"), shares=self.shares)


def whole(classes: int = 3, devices: int = 12, values: bool = False, seed: int = 0) -> dict[str, np.ndarray]:
    """The arrays of a file with the devices of all sites, named so that the sites' devices alternate."""
    rng = np.random.default_rng(seed)
    device = np.repeat(np.arange(devices), rng.integers(20, 50, devices))
    y = rng.integers(0, classes, device.size)
    x = rng.normal(size=(device.size, 4)) * [1, 100, 0.01, 3] + np.array([0, 1.7e9, 48.1, -5]) + np.eye(3, 4)[y % 3]
    target = 21 + 3 * (np.sin(x[:, 0]) + 0.1 * device)
    inputs = np.array(["light", "time", "north", "heat"])
    names = np.char.add("d", np.char.zfill((device * 7 % devices).astype(str), 2))
    return {"x": x, "y": target if values else y, "device": names, "inputs": inputs}


def parts(arrays: dict[str, np.ndarray], folder: Path, sites: int, *, turned: bool = False) -> dict[str, Path]:
    """A file for each site with its devices of ``arrays``; ``turned``: each with the inputs in another order."""
    names = np.unique(arrays["device"])
    files = {}
    for site in range(sites):
        mine = np.isin(arrays["device"], names[site::sites])
        held = {key: arrays[key][mine] for key in ("x", "y", "device")}
        for key in ("split", "validation"):
            if key in arrays:
                held[key] = np.intersect1d(arrays[key], names[site::sites])
        order = np.roll(np.arange(arrays["x"].shape[1]), site if turned else 0)
        files[f"lab-{site}"] = folder / f"{site}.npz"
        np.savez(files[f"lab-{site}"], **{**held, "x": held["x"][:, order], "inputs": arrays["inputs"][order]})
    return files
