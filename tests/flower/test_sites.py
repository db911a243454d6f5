"""Sites with data of their own: the theta of one process with all rows, and nothing of a sample on the wire."""

import csv
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict
from flwr.common.serde import recorddict_from_proto
from flwr.proto.recorddict_pb2 import RecordDict as Bytes
from site_gateways import Federation, parts, whole

from tinyfl.algorithms import Inner, Layer, Phase, State, Updates
from tinyfl.deployment.gateway import Gateway
from tinyfl.errors import ConfigError, DataError, RunError, TrainingError
from tinyfl.fleets.assembly import opened
from tinyfl.flower import remote
from tinyfl.flower.allowed import read_allowed
from tinyfl.runs.finished import origin
from tinyfl.simulation import simulate
from tinyfl.simulation.result import Run

RUN: dict[str, Any] = {"task": "npz", "network": "mlp-8", "rounds": 12, "cohort": 3, "tasks": 40, "shots": (5,), "seed": 3}
Arrays = dict[str, np.ndarray]


@pytest.fixture(autouse=True)
def quick(no_page: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, seconds in {"POLL": 0.0, "LOOK": 0.01, "RETRY": 0.0, "GRACE": 2.0}.items():
        monkeypatch.setattr(remote, f"{name}_SECONDS", seconds)
    monkeypatch.setattr("tinyfl.flower.sites.LOOK_SECONDS", 0.01)
    monkeypatch.chdir(tmp_path)


def in_one_process(arrays: Arrays, folder: Path, **options: Any) -> Run:
    np.savez(folder / "all.npz", **arrays)  # type: ignore[arg-type]
    return simulate(data=str(folder / "all.npz"), out=folder / "here", **{**RUN, **options})


def demand_same(there: Run, here: Run) -> None:
    """The same theta and the same file, bit for bit; the same evaluation, up to a rounding of the last digits."""
    assert there.theta.tobytes() == here.theta.tobytes()
    files = [dict(np.load(run.path / "initialisation.npz")) for run in (there, here)]
    for name in files[0].keys() - {"config_sha256"}:
        assert files[0][name].tobytes() == files[1][name].tobytes(), name
    for part in ("evaluation", "baseline", "floor"):
        for ours, theirs in zip(there.result[part], here.result[part], strict=True):
            for key, value in theirs.items():
                assert ours[key] == (pytest.approx(value, rel=1e-12) if isinstance(value, float) else value), (part, key)


@pytest.mark.parametrize("sites", [2, 5])
@pytest.mark.parametrize("values", [False, True])
@pytest.mark.parametrize("standardise", [True, False])
def test_sites_with_files_of_their_own_end_with_the_theta_of_one_file(
    tmp_path: Path, sites: int, values: bool, standardise: bool
) -> None:
    arrays = whole(values=values)
    if not standardise:
        arrays["x"] = (arrays["x"] - arrays["x"].mean(axis=0)) / arrays["x"].std(axis=0)
        arrays["y"] = arrays["y"] - 21 if values else arrays["y"]
    here = in_one_process(arrays, tmp_path, standardise=standardise)
    there = Federation(parts(arrays, tmp_path, sites, turned=True)).run(tmp_path / "there", **RUN, standardise=standardise)
    demand_same(there, here)


@pytest.mark.parametrize("sites", [2, 5])
def test_sites_that_lack_classes_learn_all_of_them(tmp_path: Path, sites: int) -> None:
    arrays = whole(classes=4, devices=20)
    site = np.searchsorted(np.unique(arrays["device"]), arrays["device"]) % sites
    arrays["y"] = np.where(arrays["y"] == site % 4, (arrays["y"] + 1) % 4, arrays["y"])
    arrays["y"] = np.array(["walk", "sit", "run", "lie"])[arrays["y"]]
    here = in_one_process(arrays, tmp_path)
    there = Federation(parts(arrays, tmp_path, sites)).run(tmp_path / "there", **RUN)
    demand_same(there, here)
    assert list(np.load(there.path / "initialisation.npz")["classes"]) == ["lie", "run", "sit", "walk"]


def nanoseconds(x: np.ndarray) -> np.ndarray:
    return 1_700_000_000_000_000_000 + np.rint(x * 10).astype(np.int64)


FORMS: dict[str, Callable[[Arrays], Arrays]] = {
    "nanoseconds": lambda a: {**a, "x": nanoseconds(whole()["x"] - whole()["x"].mean(axis=0))},
    "float32": lambda a: {**a, "x": a["x"].astype(np.float32)},
    "one-hot": lambda a: {**a, "y": np.eye(3)[a["y"]]},
    "numbered devices": lambda a: {**a, "device": np.unique(a["device"], return_inverse=True)[1]},
    "lists": lambda a: {**a, "split": np.array(["d03", "d08"]), "validation": np.array(["d00", "d01", "d05"])},
    "missing values": lambda a: {**a, "x": np.where(np.random.default_rng(5).random(a["x"].shape) < 0.1, np.nan, a["x"])},
    "a constant": lambda a: {**a, "x": np.c_[a["x"][:, :3], np.full(len(a["x"]), 7.25)]},
}


@pytest.mark.parametrize("options", [{"balance": True}, {"missing": "mean", "drop_small": True}])
def test_settings_of_the_data_hold_across_sites(tmp_path: Path, options: dict[str, Any]) -> None:
    arrays = whole()
    here = in_one_process(arrays, tmp_path, **options)
    demand_same(Federation(parts(arrays, tmp_path, 2)).run(tmp_path / "there", **RUN, **options), here)


def test_what_nobody_says_is_chosen_by_the_size_of_all_sites(tmp_path: Path) -> None:
    arrays, options = whole(), {name: value for name, value in RUN.items() if name not in ("network", "rounds", "cohort")}
    np.savez(tmp_path / "all.npz", **arrays)  # type: ignore[arg-type]
    here = simulate(data=str(tmp_path / "all.npz"), out=tmp_path / "here", **options)
    demand_same(Federation(parts(arrays, tmp_path, 2)).run(tmp_path / "there", **options), here)


class OwnHead:
    """Each device keeps its last layer, which learns first."""

    def inner(self, round: int, layers: Sequence[Layer]) -> Inner:
        head = layers[-1].bit
        return Inner(Phase(3, 0.05, layers=head), Phase(5, 0.05), local=head, kept=True)

    def outer(self, state: State, updates: Updates) -> State:
        return state.step(updates.mean() - state.theta)


def test_what_devices_keep_is_at_their_sites_from_run_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    arrays, own = whole(), {"algorithm": OwnHead()}
    here = in_one_process(arrays, tmp_path, **own)
    sites = Federation(parts(arrays, tmp_path, 2), native=2)
    again = [sites.run(tmp_path / f"there-{run}", **RUN, **own) for run in range(2)]
    for there in again:
        assert there.theta.tobytes() == here.theta.tobytes()
    files = list((tmp_path / "cache").rglob("kept-*"))
    assert len(files) == 2 and all(path.is_file() for path in files)


@pytest.mark.parametrize("values", [False, True])
def test_evaluation_on_the_way_keeps_the_theta_that_one_process_keeps(tmp_path: Path, values: bool) -> None:
    arrays, options = whole(values=values), {"evaluate_every": 4, "patience": 2}
    here = in_one_process(arrays, tmp_path, **options)
    there = Federation(parts(arrays, tmp_path, 3)).run(tmp_path / "there", **RUN, **options)
    demand_same(there, here)
    assert there.result["best_round"] == here.result["best_round"]
    for ours, theirs in zip(there.result["validation"], here.result["validation"], strict=True):
        for key, value in theirs.items():
            assert ours[key] == (pytest.approx(value, rel=1e-12) if isinstance(value, float) else value)


@pytest.mark.parametrize("form", FORMS)
def test_what_holds_in_one_process_holds_across_sites(tmp_path: Path, form: str) -> None:
    arrays = FORMS[form](whole())
    here = in_one_process(arrays, tmp_path)
    demand_same(Federation(parts(arrays, tmp_path, 3)).run(tmp_path / "there", **RUN), here)


def test_files_of_other_types_are_what_one_file_would_make_of_them(tmp_path: Path) -> None:
    arrays = whole()
    arrays["x"] = np.rint(arrays["x"])
    files = parts(arrays, tmp_path, 2)
    narrow = dict(np.load(files["lab-0"]))
    np.savez(files["lab-0"], **{**narrow, "x": narrow["x"].astype(np.int64), "y": narrow["y"].astype(np.float32)})
    demand_same(Federation(files).run(tmp_path / "there", **RUN), in_one_process(arrays, tmp_path))


def held_by_the_coordinator(arrays: Arrays, folder: Path) -> tuple[dict[str, Path], Path]:
    """The files of two sites, and of the coordinator, who holds three devices to test on."""
    own = np.isin(arrays["device"], ["d04", "d07", "d11"])
    rest, held = ({key: each if key == "inputs" else each[rows] for key, each in arrays.items()} for rows in (~own, own))
    np.savez(folder / "held.npz", **held)
    return dict(parts(rest, folder, 2, turned=True)), folder / "held.npz"


def test_the_coordinator_may_hold_held_out_devices_of_its_own(tmp_path: Path) -> None:
    arrays = whole()
    files, held = held_by_the_coordinator(arrays, tmp_path)
    there = Federation(files).run(tmp_path / "there", **RUN, data=str(held))
    demand_same(there, in_one_process({**arrays, "split": np.array(["d04", "d07", "d11"])}, tmp_path))
    assert "the coordinator 3 devices" in "\n".join(there.result["notes"])


def test_the_coordinators_own_file_may_move_before_a_run_goes_on(tmp_path: Path) -> None:
    files, held = held_by_the_coordinator(whole(), tmp_path)
    before = Federation(files).run(tmp_path / "there", **RUN, data=str(held))
    moved = held.rename(tmp_path / "moved.npz")
    after = Federation(files).resume(tmp_path / "there", data=str(moved))
    assert after.theta.tobytes() == before.theta.tobytes()


def test_a_run_of_sites_is_looked_at_again_with_a_file_of_the_users(tmp_path: Path) -> None:
    arrays = whole()
    there = Federation(parts(arrays, tmp_path, 2)).run(tmp_path / "there", **RUN)
    here = in_one_process(arrays, tmp_path)
    found, expected = origin(there.path, tmp_path / "all.npz"), origin(here.path, None)
    assert found.run and expected.run
    assert found.run.data_sha256 == expected.run.data_sha256
    assert found.start.theta.tobytes() == expected.start.theta.tobytes()


def test_a_number_of_devices_and_updates_apart_are_as_in_one_process(tmp_path: Path) -> None:
    arrays = whole()
    federation = Federation(parts(arrays, tmp_path, 2), shares=True)
    few = federation.run(tmp_path / "few", **RUN, devices=4)
    assert few.theta.tobytes() == in_one_process(arrays, tmp_path, devices=4).theta.tobytes()
    apart = federation.run(tmp_path / "apart", **RUN, nodes="devices", aggregator="median")
    here = simulate(data=str(tmp_path / "all.npz"), out=tmp_path / "median", **RUN, nodes="devices", aggregator="median")
    assert apart.theta.tobytes() == here.theta.tobytes()


def test_a_gateway_that_starts_again_goes_on_with_the_message_alone(tmp_path: Path) -> None:
    arrays = whole()
    federation = Federation(parts(arrays, tmp_path, 2), restarts=True)
    assert federation.run(tmp_path / "there", **RUN).theta.tobytes() == in_one_process(arrays, tmp_path).theta.tobytes()


def test_a_run_that_was_cut_off_goes_on_with_the_same_data_and_no_other(tmp_path: Path) -> None:
    arrays = whole()
    files = parts(arrays, tmp_path, 2)
    trained = 0

    def cut(name: str, message: Message) -> None:
        nonlocal trained
        trained += message.metadata.message_type == "train"
        if trained == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Federation(files).run(tmp_path / "there", cut, **RUN)
    changed = dict(np.load(files["lab-1"]))
    kept = files["lab-1"].read_bytes()
    np.savez(files["lab-1"], **{**changed, "x": changed["x"] + 0.001})
    with pytest.raises(RunError, match="the data of the sites was changed since the run started"):
        Federation(files).resume(tmp_path / "there", **RUN)
    files["lab-1"].write_bytes(kept)
    again = Federation(files)
    resumed = again.resume(tmp_path / "there", **RUN)
    assert sum(b'"what": "first"' in message for message in again.asked) == len(files)  # they agree once
    assert resumed.theta.tobytes() == in_one_process(arrays, tmp_path).theta.tobytes()


# What leaves a site


ROLL = {
    "site", "devices", "counts", "split", "validation", "names", "x", "shape", "y", "outputs", "notation", "classes", "digest",
    "shares",
}  # fmt: skip
ROUND = {"num-examples", "devices", "loss"}


def test_names_classes_counts_and_sums_leave_a_site_and_nothing_else(tmp_path: Path) -> None:
    arrays = whole()
    federation = Federation(parts(arrays, tmp_path, 2))
    run = federation.run(tmp_path / "there", **RUN)
    seen = set()
    for data in federation.said:
        reply = recorddict_from_proto(Bytes.FromString(data))
        seen.add(tuple(sorted(reply)))
        if "said" in reply:
            demand_only_sums(json.loads(str(reply["said"]["json"])), run)
            continue
        (total,) = reply.array_records["arrays"].values()
        assert (total.dtype, tuple(total.shape)) == ("int64", run.theta.shape)
        assert set(reply.metric_records["metrics"]) == ROUND
        assert set(reply.config_records) == {"events"}
        assert list(reply.config_records["events"]["said"]) == []  # type: ignore[arg-type]
    assert seen == {("said",), ("arrays", "events", "metrics")}


def demand_only_sums(said: dict[str, Any], run: Run) -> None:
    """An answer has the keys and the lengths of names, counts and sums."""
    if "devices" in said:
        assert set(said) == ROLL
        assert len(said["devices"]) == len(said["counts"]) == 6
        assert (said["classes"], said["names"], said["shares"]) == ([0, 1, 2], said["names"], False)
    elif "x" in said:
        assert set(said) <= {"rows", "x", "classes"}
        assert [len(each) for each in said["x"]] == [4] * len(said["x"])
        assert [type(count) for count in said["x"][0]] == [int] * 4
        assert len(said.get("classes", "123")) == 3
    else:
        assert set(said) == {"cases"}
        numbers = [part for case in said["cases"] if case for part in flat(case)]
        assert all(isinstance(part, int | str) for part in numbers)
        moments = [each for case in said["cases"] if case for each in moments_in(case)]
        assert moments
        assert all(len(each) == 4 and type(each[0]) is int for each in moments)


def flat(said: Any) -> list[Any]:
    inner = said.values() if isinstance(said, dict) else said
    return [part for each in inner for part in (flat(each) if isinstance(each, dict | list) else [each])]


def moments_in(case: list[Any]) -> list[list[Any]]:
    if isinstance(case[0], dict):
        return [each for loop in case for name, curve in loop.items() if name != "values" for each in curve]
    return [each for _, _, each in case]


@pytest.mark.parametrize("values", [False, True])
def test_no_sample_is_in_any_byte_that_a_site_sends_or_is_sent(tmp_path: Path, values: bool) -> None:
    """Neither in binary nor as text: no two neighbouring values of a row, no run of labels, no label of its own."""
    arrays = whole(values=values)
    federation = Federation(parts(arrays, tmp_path, 2))
    run = federation.run(tmp_path / "there", **RUN)
    wire = b"\0".join([*federation.said, *federation.asked])
    assert run.theta.astype("<f4").tobytes() not in wire or b"theta" in wire
    held = dict(np.load(run.path / "initialisation.npz"))
    scaled = ((arrays["x"] - held["mean"]) / held["scale"]).astype(np.float32)
    for row in (*arrays["x"], *scaled):
        for kind in ("<f8", ">f8", "<f4", ">f4"):
            for pair in (row[:2], row[2:], row[1:3]):
                assert pair.astype(kind).tobytes() not in wire
    for number in np.unique(arrays["x"][:, [0, 2, 3]]):
        assert repr(float(number)).encode() not in wire
    if values:
        for number in arrays["y"]:
            assert np.float64(number).tobytes() not in wire
            assert repr(float(number)).encode() not in wire
    else:
        for device in np.unique(arrays["device"]):
            labels = arrays["y"][arrays["device"] == device]
            for text in (str(labels.tolist()), "".join(map(str, labels)), json.dumps(labels[:8].tolist())):
                assert text.encode() not in wire
            for kind in (np.uint8, np.int32, np.int64):
                assert labels[:8].astype(kind).tobytes() not in wire


def test_the_first_lines_say_where_a_sum_is_of_one_device(tmp_path: Path) -> None:
    arrays = whole()
    notes = Federation(parts(arrays, tmp_path, 2)).run(tmp_path / "there", **RUN).result["notes"]
    assert notes[0].startswith("sites: lab-0 6 devices, ")
    assert "samples stay at their sites, which send sums" in notes[1]
    (privacy,) = [note for note in notes if note.startswith("privacy: with a cohort of 3")]
    assert "lab-0, lab-1 may have one device in a round, whose update is then the site's sum" in privacy
    everyone = Federation(parts(arrays, tmp_path, 2)).run(tmp_path / "all", **{**RUN, "cohort": 8}).result["notes"]
    assert not [note for note in everyone if note.startswith("privacy: with a cohort")]
    alone = {**arrays, "split": np.array(["d00"]), "validation": np.array(["d01"])}
    notes = Federation(parts(alone, tmp_path, 2)).run(tmp_path / "alone", **RUN).result["notes"]
    assert [note for note in notes if "lab-0 has one device that is for testing" in note]
    assert [note for note in notes if "lab-1 has one device that chooses adaptation rates" in note]


def test_results_of_single_devices_are_written_at_their_site_and_sent_only_if_it_shares_them(tmp_path: Path) -> None:
    files = parts(whole(), tmp_path, 2)
    kept = Federation(files)
    run = kept.run(tmp_path / "there", **RUN)
    learnt = run.result["theta_sha256"][:8]
    tables = sorted((tmp_path / "runs").glob(f"*-devices-{learnt}.csv"))
    rows = [row for table in tables for row in csv.DictReader(table.open())]
    assert {row["device"] for row in rows} & {row["device"] for row in csv.DictReader(tables[0].open())}
    leading = [float(row["accuracy"]) for row in rows if (row["mode"], row["steps"]) == ("batch", "10")]
    expected = next(row["accuracy"] for row in run.evaluation if (row["mode"], row["steps"]) == ("batch", 10))
    assert np.mean(leading) == pytest.approx(expected, rel=1e-9)
    assert any(f"with the weights {learnt}: {tables[0]}" in line for line in kept.told)
    assert not (run.path / "devices.csv").exists()
    shared = Federation(files, shares=True).run(tmp_path / "shared", **RUN)
    sent = list(csv.DictReader((shared.path / "devices.csv").open()))
    assert [row["accuracy"] for row in sent if row["weights"] == learnt] == [row["accuracy"] for row in rows]
    with pytest.raises(ConfigError, match=r"lab-0, lab-1 sends sums alone.*--share-devices"):
        kept.run(tmp_path / "apart", **RUN, nodes="devices", aggregator="median")


# What is refused before the first round


Bad = tuple[Callable[[Arrays], Arrays], str]
"""What is wrong with the file of lab-1, and what the run says of it."""


def of_the_inputs(a: Arrays) -> dict[str, Bad]:
    names = np.array(["light", "time", "north", "temperature"])
    nan = np.where(np.arange(len(a["x"]))[:, None] == 3, np.nan, a["x"])
    lists = "lab-1 has the inputs light, time, north, and lab-0 light, time, north, heat: lab-1 lacks heat"
    infinite = np.where(np.isnan(nan), np.inf, nan)
    return {
        "a missing input": (lambda a: {**a, "x": a["x"][:, :3], "inputs": names[:3]}, lists),
        "another input": (lambda a: {**a, "inputs": names}, "lab-1 lacks heat and has temperature of its own"),
        "no names": (lambda a: {**a, "inputs": np.zeros(4)}, r"lab-1 has the inputs no names \(4 inputs\)"),
        "a larger unit": (
            lambda a: {**a, "x": a["x"] * [1, 1, 1000, 1]},
            r"lab-1 seems to have x, input north, in another unit than lab-0: its mean is 4\.8\d*e\+04 .*--no-standardise",
        ),
        "a smaller unit": (lambda a: {**a, "x": a["x"] * [1, 1, 1, 0.001]}, "input heat, in another unit than lab-1"),
        "an infinite value": (lambda a: {**a, "x": infinite}, "lab-1: its data cannot be used; the log of its gateway says"),
    }


def of_the_devices(a: Arrays) -> dict[str, Bad]:
    device, few = a["device"], (a["device"] != "d01") | (np.cumsum(a["device"] == "d01") < 5)
    small = {key: array if key == "inputs" else array[few] for key, array in a.items()}
    return {
        "a device twice": (
            lambda a: {**a, "device": np.where(device == device[-1], "d00", device)}, "device d00 is at lab-0 and at lab-1",
        ),
        "numbered devices": (lambda a: {**a, "device": np.unique(device, return_inverse=True)[1]}, "lab-0 names, lab-1 num"),
        "no device": (lambda a: {"x": a["x"], "y": a["y"]}, "lab-1: its data cannot be used"),
        "a device that is not there": (lambda a: {**a, "split": np.array(["d99"])}, "lab-1: its data cannot be used"),
        "too few samples": (
            lambda a: {**small, "split": np.array(["d01"])}, r"device d01 \(test\) has 4 samples, too few for 5 shots",
        ),
    }  # fmt: skip


def of_the_targets(a: Arrays) -> dict[str, Bad]:
    nines = np.where(a["device"] == "d01", 9, a["y"])
    return {
        "values": (lambda a: {**a, "y": a["y"] + 0.5}, r"y holds values at lab-1, and classes by number at lab-0"),
        "names of classes": (lambda a: {**a, "y": a["y"].astype(str)}, "y holds classes by name at lab-1, and classes by n"),
        "a class of test devices alone": (
            lambda a: {**a, "y": nines, "split": np.array(["d01"])}, "class 9 of lab-1 is on no device that trains",
        ),
    }  # fmt: skip


KINDS = (of_the_inputs, of_the_devices, of_the_targets)
BAD = [(kind, name) for kind in KINDS for name in kind(whole())]


@pytest.mark.parametrize(("kind", "name"), BAD)
def test_a_site_whose_data_do_not_belong_is_refused_by_name_before_the_first_round(
    tmp_path: Path, kind: Callable[[Arrays], dict[str, Bad]], name: str
) -> None:
    files = parts(whole(), tmp_path, 2)
    arrays = dict(np.load(files["lab-1"]))
    change, words = kind(arrays)[name]
    np.savez(files["lab-1"], **change(arrays))
    federation = Federation(files)
    with pytest.raises(DataError, match=words):
        federation.run(tmp_path / "there", **RUN)
    assert not (tmp_path / "there" / "rounds.jsonl").exists()
    if name == "an infinite value":
        (line,) = [line for line in federation.told if "cannot do its part" in line]
        assert line.startswith("lab-1: ")
        assert "array x has inf in row 3, column 0" in line


def test_values_in_another_unit_are_refused_by_the_names_of_both_sites(tmp_path: Path) -> None:
    files = parts(whole(values=True), tmp_path, 2)
    arrays = dict(np.load(files["lab-0"]))
    np.savez(files["lab-0"], **{**arrays, "y": 1000 * arrays["y"]})
    with pytest.raises(DataError, match=r"lab-0 seems to have y in another unit than lab-1: its mean is"):
        Federation(files).run(tmp_path / "there", **RUN)


def test_a_file_that_is_gone_and_a_gateway_without_one_are_named(tmp_path: Path) -> None:
    files = parts(whole(), tmp_path, 2)
    with pytest.raises(ConfigError, match=r"lab-0 brings data of its own, and 1 other node"):
        Federation({**files, "lab-1": Path()}).run(tmp_path / "there", **RUN)
    files["lab-1"].unlink()
    federation = Federation(files)
    with pytest.raises(DataError, match="lab-1: its data cannot be used"):
        federation.run(tmp_path / "there", **RUN)
    assert [line for line in federation.told if "Give this gateway another file" in line]


def test_a_site_that_is_missing_is_waited_for_and_then_the_others_are_named(tmp_path: Path) -> None:
    federation = Federation(parts(whole(), tmp_path, 2))
    with pytest.raises(TrainingError, match=r"2 of 3 sites have answered after 0.5 s: .*lab-.*--nodes"):
        federation.run(tmp_path / "there", **RUN, nodes="3")
    (note,) = federation.notes
    assert re.fullmatch(r"2 of 3 sites have answered: lab-0, lab-1\. The run waits for the others, for at most \d+ s", note)


def test_means_far_apart_are_said_by_the_sites_name(tmp_path: Path) -> None:
    files = parts(whole(), tmp_path, 2)
    arrays = dict(np.load(files["lab-1"]))
    np.savez(files["lab-1"], **{**arrays, "x": arrays["x"] + [0, 0, 0, 273.15]})
    notes = Federation(files).run(tmp_path / "there", **RUN).result["notes"]
    assert [note for note in notes if "lab-1's mean is more than 30 deviations from the others', in heat" in note]


def test_copies_of_the_coordinators_file_are_served_by_number_as_before(tmp_path: Path) -> None:
    arrays = whole()
    here = in_one_process(arrays, tmp_path)
    copies = {}
    for name in ("lab-0", "lab-1"):
        copies[name] = tmp_path / f"{name}.npz"
        copies[name].write_bytes((tmp_path / "all.npz").read_bytes())
    there = Federation(copies, native=4).run(tmp_path / "there", **RUN, data=str(tmp_path / "all.npz"), devices=8)
    assert there.theta.tobytes() == here.theta.tobytes()


LIES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no devices": lambda said: said | {"devices": [], "counts": []},
    "another length": lambda said: said | {"counts": said["counts"][1:]},
    "a type that is none": lambda said: said | {"x": "fruit"},
    "no key": lambda said: {"site": "lab-1"},
    "no JSON": lambda said: None,
}


@pytest.mark.parametrize("lie", LIES)
def test_a_roll_that_is_none_is_not_taken_for_one(tmp_path: Path, lie: str) -> None:
    def lying(name: str, reply: RecordDict) -> None:
        if name == "lab-1" and "said" in reply:
            said = json.loads(str(reply["said"]["json"]))
            reply["said"]["json"] = json.dumps(LIES[lie](said)) if lie != "no JSON" else "{"

    federation = Federation(parts(whole(), tmp_path, 2), lie=lying)
    with pytest.raises(TrainingError, match=r"1 of 2 sites have answered .* lab-0\. Node .*cannot be read"):
        federation.run(tmp_path / "there", **RUN)


SUMS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "x": lambda said: said | {"x": [3]},
    "cases": lambda said: {"cases": []},
    "moments": lambda said: {"cases": [case and [{"loss": [[1, 2, "0/1", "0/1"]]}] for case in said["cases"]]},
}


@pytest.mark.parametrize(("key", "lie"), [("x", "x"), ("cases", "cases"), ("cases", "moments")])
def test_sums_that_are_none_end_the_run_with_the_sites_name(tmp_path: Path, key: str, lie: str) -> None:
    def lying(name: str, reply: RecordDict) -> None:
        if name == "lab-1" and "said" in reply:
            said = json.loads(str(reply["said"]["json"]))
            if key in said and "devices" not in said:
                reply["said"]["json"] = json.dumps(SUMS[lie](said))

    with pytest.raises(TrainingError, match=r"lab-1's answer cannot be read"):
        Federation(parts(whole(), tmp_path, 2), lie=lying).run(tmp_path / "there", **RUN)


def test_more_sites_than_devices_that_train_are_no_error(tmp_path: Path) -> None:
    arrays = whole(devices=5)
    options = {**RUN, "cohort": 2, "tasks": 4}
    there = Federation(parts(arrays, tmp_path, 5)).run(tmp_path / "there", **options)
    assert there.theta.tobytes() == in_one_process(arrays, tmp_path, **options).theta.tobytes()


def test_a_run_of_another_task_is_told_what_a_gateway_has(tmp_path: Path) -> None:
    files = parts(whole(), tmp_path, 2)
    with opened([]) as site:
        gateway = Gateway("lab-0", site, read_allowed(), str(files["lab-0"]))
        said = gateway("query", RecordDict({"config": ConfigRecord()}), {"task": "sine"})
    assert isinstance(said, Error)
    assert "lab-0 has devices of its own data alone, for runs with --task npz" in str(said.reason)


@pytest.mark.slow
def test_the_sites_of_the_page_on_federations_train_together(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "federation.md").read_text()
    code, command = (re.search(rf'```\w+ title="{title}"\n(.*?)```', page, re.DOTALL)[1] for title in TITLES)  # type: ignore[index]
    exec(code, {})
    options = dict(re.findall(r"--(\w+) (\S+)", command))
    assert options.pop("federation")
    whole_numbers = {key: int(value) for key, value in options.items() if value.isdecimal() and key != "nodes"}
    run = Federation({name: Path(f"{name}.npz") for name in ("lab-a", "lab-b")}).run(
        Path(options.pop("out")), **{**options, **whole_numbers, "tasks": 40}
    )
    assert next(row["accuracy"] for row in run.evaluation if row["steps"] == 10) > 0.8


TITLES = (r"make_sites\.py", "the coordinator")
