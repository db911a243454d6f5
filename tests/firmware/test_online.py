"""Online learning: the core gives reference_online.py's bits and codes, whatever is asked of it and in whatever order."""

import ctypes
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import harness
import numpy as np
import pytest
import reference_online as ref
from harness import EINVAL, ENUMERIC, OK, address
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import PROTOTYPES, TANH, Learner
from reference_layers import F32, dense
from reference_online import CLASSES, LABELS, RECONSTRUCT, VALUES, Online, Refused, Set

from tinyfl.networks import network
from tinyfl.networks.layers import Activation, Loss
from tinyfl.online import Head, OnlineSet, Standardised
from tinyfl.online.device import Device
from tinyfl.online.prequential import labels_due
from tinyfl.online.starts import Start


class CResult(ctypes.Structure):
    _fields_ = (
        ("number", ctypes.c_uint32), ("class_number", ctypes.c_uint32),
        ("confidence", ctypes.c_float), ("score", ctypes.c_float), ("learnt", ctypes.c_int),
    )  # fmt: skip


class Core:
    """The core's online learning. Calls return what the core does, or raise Refused."""

    def __init__(self, lib: Any, set: Set, n: int) -> None:
        self.lib, self.online = lib, (ctypes.c_uint64 * (lib.online_size() // 8 + 1))()
        count = lib.tinyfl_online_bytes(set.record)
        self.memory = np.full(count // 4 + 1, np.nan, np.float32)
        self.loss = np.zeros(1, np.float32)
        self._call("init", set.record, n, address(self.memory))

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self.lib, f"tinyfl_online_{name}")(self.online, *arguments)
        if code != OK:
            raise Refused(code)

    @property
    def learnt(self) -> bytes:
        return self.memory.tobytes()[: self.lib.tinyfl_online_learnt_bytes(self.online)]

    @property
    def wanted(self) -> int:
        return int(self.lib.tinyfl_online_wanted(self.online))

    def enter(self, x: F32) -> F32:
        x = x.copy()
        self._call("enter", address(x))
        return x

    def sample(self, e: F32, x: F32 | None = None) -> tuple[int, int, float, float, int]:
        result = CResult()
        self._call("sample", address(e), address(x), ctypes.byref(result))
        return result.number, result.class_number, result.confidence, result.score, result.learnt

    def label(self, number: int, label: int) -> np.float32:
        self._call("label", number, label, address(self.loss))
        return self.loss[0]

    def target(self, number: int, t: F32) -> np.float32:
        self._call("target", number, address(t), address(self.loss))
        return self.loss[0]

    def add(self) -> None:
        self._call("add")

    def remove(self, number: int) -> None:
        self._call("remove", number)

    def replace(self, head: F32) -> None:
        self._call("replace", head.shape[1], address(head))

    def restore(self, learnt: bytes) -> None:
        held = np.frombuffer(learnt, np.float32).copy()
        self._call("restore", address(held), len(learnt))


def answer(call: Callable[[], Any]) -> Any:
    """What the call gives, bits for floats; or the code of its refusal."""
    try:
        with np.errstate(all="ignore"):
            given = call()
    except Refused as refused:
        return refused.code
    if isinstance(given, np.ndarray):
        return given.tobytes()
    return np.float64(given).tobytes() if given is not None else None


SETS = [
    Set(cap=256, alarm=3.0, unsure=140),
    Set(places=6, ring=3, window=64, clip=0.3, rate=0.5),
    Set(standardised=ref.EMBEDDINGS, embedded=1, inputs=5, rate=2.0, alarm=2.0, tolerance=0.1),
    Set(head=LABELS, standardised=ref.NOTHING, rate=1.0, alarm=1.0, unsure=160),
    Set(head=VALUES, places=2, cap=8, rate=0.05, alarm=5.0, window=10),
    Set(head=VALUES, places=1, standardised=ref.NOTHING, rate=0.0),
    Set(head=RECONSTRUCT, embedded=1, inputs=4, size=2, places=4, ring=0, threshold=0.7, alarm=1.0, cap=50),
]
WILD = (np.nan, np.inf, -np.inf, 2.0**50, -(2.0**50), 2.0**49, 3.4e38, 1e-40, -0.0)


def some(rng: np.random.Generator, shape: int, shift: float, wild: float) -> F32:
    return np.where(rng.random(shape) < wild, rng.choice(WILD, shape), rng.normal(shift, 2, shape)).astype(np.float32)


def doing(rng: np.random.Generator, set: Set, wild: float) -> tuple[str, tuple[Any, ...]]:
    """One request, of which a share is senseless."""
    what = rng.choice(["sample"] * 6 + ["label"] * 4 + ["add", "remove", "replace"]) if wild else "sample"
    ago, number = int(rng.integers(0, set.ring + 3)), int(rng.integers(0, set.places + 2))
    if what == "sample":
        return "sample", (some(rng, set.inputs, 1.0, wild / 8), some(rng, set.size, 0.0, wild / 8))
    if what == "label" and rng.random() < 0.9:
        what = "label" if set.head == CLASSES else "target"
    if what == "target":
        t = some(rng, set.places, 0.0, wild / 8)
        return "target", (ago, (rng.random(set.places) < 0.5).astype(np.float32) if rng.random() < 0.7 else t)
    if what == "replace":
        n = max(1, int(rng.integers(0, set.places + 2)))
        return "replace", (some(rng, (set.size + 1) * n, 0.0, wild / 40).reshape(-1, n),)
    return str(what), ((ago, number) if what == "label" else (number,) if what == "remove" else ())


def do(device: Any, last: int, set: Set, what: str, given: tuple[Any, ...]) -> list[Any]:
    """The answers to a request."""
    if what in ("label", "target"):
        return [answer(lambda: getattr(device, what)(max(last - given[0], 0), given[1]))]
    if what != "sample":
        return [answer(lambda: getattr(device, what)(*given))]
    x, e = given
    vector = e if set.standardised == ref.EMBEDDINGS else x
    entered = answer(lambda: device.enter(vector))
    if isinstance(entered, int):
        return [entered]
    z = np.frombuffer(entered, np.float32).copy() if entered is not None else vector
    if not set.embedded:
        return [entered, answer(lambda: device.sample(z, None))]
    return [
        entered,
        answer(lambda: device.sample(z if set.standardised == ref.EMBEDDINGS else e, z if set.inputs == len(z) else x)),
    ]


@pytest.mark.parametrize("set", SETS, ids=lambda set: f"{set.head}-{set.standardised}-{set.places}")
def test_whatever_is_asked_the_core_does_or_refuses_as_the_reference_and_a_refusal_changes_nothing(core: Any, set: Set) -> None:
    rng = np.random.default_rng(set.places)
    n = 1 if set.head in (CLASSES, LABELS) else set.places
    device, reference, refused = Core(core, set, n), Online(set, n), 0
    for _ in range(1500):
        what, given = doing(rng, set, 0.1)
        before, last = reference.learnt, reference.number
        expected = do(reference, last, set, what, given)
        assert do(device, last, set, what, given) == expected, (what, given)
        assert device.learnt == reference.learnt
        assert device.wanted == reference.wanted
        if isinstance(expected[0], int):
            assert reference.learnt == before
        refused += isinstance(expected[-1], int)
    assert refused > 100


def test_ten_thousand_samples_with_classes_that_grow_and_shrink_are_the_references_bits(core: Any) -> None:
    """A world of 12 classes that drifts: with late labels, of a share, and forgotten classes that come again."""
    set = Set(inputs=4, size=4, places=8, ring=4, cap=256, window=128, rate=0.2, alarm=8.0)
    rng = np.random.default_rng(24)
    device, reference, names = Core(core, set, 1), Online(set, 1), [0]
    centres, right = rng.normal(0, 3, (12, 4)), 0
    for step in range(10_000):
        name = int(rng.integers(0, 6)) + 6 * (step > 5_000)
        z = reference.enter(x := rng.normal(centres[name] + step / 2_000, 1).astype(np.float32))
        assert device.enter(x).tobytes() == z.tobytes()
        made = reference.sample(z)
        assert np.float64(device.sample(z)).tobytes() == np.float64(made).tobytes()
        right += names[made[1]] == name
        late = reference.number - int(rng.integers(0, 2))
        if rng.random() < 0.7 and late in reference.ring:
            if name not in names and len(names) == set.places:
                gone = int(rng.integers(len(names)))
                reference.remove(gone), device.remove(gone)
                del names[gone]
            names += [name] if name not in names else []
            label = names.index(name)
            assert device.label(late, label) == reference.label(late, label)
        if step % 100 == 99:
            assert device.learnt == reference.learnt
    assert right > 7_000
    assert reference.alarms > 0


def test_what_is_learnt_goes_on_from_its_bytes_and_damaged_bytes_are_refused(core: Any) -> None:
    rng = np.random.default_rng(5)
    for set in SETS:
        n = min(2, set.places) if set.head in (CLASSES, LABELS) else set.places
        device, reference, other = Core(core, set, n), Online(set, n), Core(core, set, set.places)
        for _ in range(30):
            what, given = doing(rng, set, 0.1)
            last = reference.number
            do(device, last, set, what, given), do(reference, last, set, what, given)
        other.restore(device.learnt)
        assert other.learnt == device.learnt == reference.learnt
        held = np.frombuffer(device.learnt, np.uint32)
        for at, wrong, code in (
            (0, 0, EINVAL), (0, set.places + 1, EINVAL), (1, (set.cap or 1 << 24) + 1, EINVAL), (6, (1 << 24) + 1, EINVAL),
            (4, 0x7FC00000, ENUMERIC), (5, 0x7F800000, ENUMERIC), (8, 0x7FC00000, ENUMERIC), (-1, 0x7FC00000, ENUMERIC),
        ):  # fmt: skip
            damaged = held.copy()
            damaged[at] = wrong
            assert answer(lambda damaged=damaged, other=other: other.restore(damaged.tobytes())) == code, (set, at)
        assert answer(lambda other=other, held=held: other.restore(held.tobytes()[:-4])) == EINVAL
        assert other.learnt == device.learnt


@pytest.mark.parametrize(
    "changed",
    [
        {"head": VALUES, "unsure": 1},
        {"head": 4}, {"standardised": 3}, {"embedded": 2}, {"inputs": 0}, {"size": 0}, {"places": 0}, {"ring": 0},
        {"size": 2}, {"standardised": ref.EMBEDDINGS}, {"places": 1 << 23}, {"ring": 1 << 23}, {"cap": (1 << 24) + 1},
        {"rate": np.nan}, {"rate": -1.0}, {"rate": 2.0**50}, {"clip": np.inf}, {"threshold": np.nan}, {"alarm": np.inf},
        {"head": RECONSTRUCT, "ring": 0, "places": 3}, {"head": RECONSTRUCT, "ring": 0, "places": 3, "embedded": 1},
        {"head": RECONSTRUCT, "ring": 1, "places": 3, "embedded": 1, "size": 2},
    ],
    ids=str,
)  # fmt: skip
def test_a_senseless_set_is_refused(core: Any, changed: dict[str, Any]) -> None:
    assert core.tinyfl_online_bytes(Set().record) > 0
    assert core.tinyfl_online_bytes(replace(Set(), **changed).record) == 0


@settings(max_examples=30, deadline=None)
@given(st.floats(-100, 100, width=32), st.floats(0.25, 50, width=32), st.integers(10, 100), st.integers(0, 1 << 32))
def test_running_mean_and_variance_are_those_of_the_samples(
    core: Any, shift: float, scale: float, count: int, seed: int
) -> None:
    x = np.random.default_rng(seed).normal(shift, scale, (count, 3)).astype(np.float32)
    device = Core(core, Set(), 1)
    for row in x:
        z = device.enter(row)
    mean, variance = x.astype(float).mean(axis=0), x.astype(float).var(axis=0)
    got = np.frombuffer(device.learnt, np.float32)[11:17]
    np.testing.assert_allclose(got, [*mean, *variance], rtol=1e-4, atol=1e-4 * (abs(shift) + scale))
    np.testing.assert_allclose(z, (x[-1] - mean) / np.sqrt(variance), rtol=1e-2, atol=1e-2)


def test_a_variance_of_exactly_the_least_counts_as_none(core: Any) -> None:
    """The second sample's is (2^-49)^2 / 4 = 2^-100, and 2^-98 with twice the value."""
    for value, none in ((2.0**-49, True), (2.0**-48, False)):
        device = Core(core, Set(), 1)
        device.enter(np.zeros(3, np.float32))
        assert (device.enter(np.full(3, value, np.float32)) == 0).all() == none


def test_a_cap_follows_an_offset_that_the_whole_past_still_holds_back(core: Any) -> None:
    """An offset of 2 comes at sample 5,000: at 6,000 a cap of 256 has it, at 10,000 the mean of all is still half wrong."""
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1, (10_000, 3)).astype(np.float32) + np.float32(2) * (np.arange(10_000) >= 5_000)[:, None].astype(
        np.float32
    )
    capped, whole = Core(core, Set(cap=256), 1), Core(core, Set(), 1)
    means = {}
    for step, row in enumerate(x, 1):
        for name, device in (("capped", capped), ("whole", whole)):
            device.enter(row)
            means[name, step] = np.frombuffer(device.memory.data, np.float32, 1, 44)[0] if step in (6_000, 10_000) else 0
    assert abs(means["capped", 6_000] - 2) < 0.2
    assert abs(means["whole", 10_000] - 1) < 0.05


def test_counts_stall_at_2_to_the_24(core: Any) -> None:
    device = Core(core, Set(), 1)
    held = np.frombuffer(device.learnt, np.uint32).copy()
    held[1] = (1 << 24) - 1
    device.restore(held.tobytes())
    for _ in range(3):
        device.enter(np.ones(3, np.float32))
    assert np.frombuffer(device.learnt, np.uint32)[1] == 1 << 24


@pytest.mark.parametrize("standardised", list(Standardised))
def test_a_devices_stream_gives_the_references_bits_through_a_frozen_network(standardised: Standardised) -> None:
    rng = np.random.default_rng(standardised)
    net = network("mlp-3-tanh", (4,), 3, Loss.prototypes, Activation.tanh)
    theta = rng.normal(0, 1, net.parameters).astype(np.float32)
    chosen = OnlineSet(Head.classes, 4, 3, 5, standardised, ring=3, cap=20, window=9, rate=0.5, tolerance=0.1, alarm=1.0)
    device = Device(chosen, Start(net, theta, 4, 3, Head.classes, None, ()))
    same = Set(CLASSES, standardised, 1, 4, 3, 5, ring=3, cap=20, window=9, rate=0.5, tolerance=0.1, alarm=1.0)
    reference = Online(same, 1)
    frozen = Learner([dense(4, 3, TANH)], PROTOTYPES, theta)
    x, y = rng.normal(1, 2, (150, 4)).astype(np.float32), rng.choice(list("abcde"), 150)
    due = labels_due(150, 0.7, 2, 0, 0)
    late = y[np.maximum(np.arange(150) - 2, 0)]
    said = [device.run(x[part], due[part], late[part])[0] for part in (slice(0, 60), slice(60, 61), slice(61, 150))]
    names, confidence, losses = list[str](), list[np.float32](), list[np.float32]()
    for row, number, name in zip(x, due, late, strict=True):
        z = reference.enter(row) if standardised is not Standardised.embeddings else row
        e = frozen.forward(z)[-1]
        e = reference.enter(e) if standardised is Standardised.embeddings else e
        confidence.append(reference.sample(e)[2])
        if number:
            names += [name] if name not in names else []
            losses.append(reference.label(int(number), names.index(name)))
    assert device.core.learnt() == reference.learnt
    assert np.concatenate([part.confidence for part in said]).tobytes() == np.array(confidence, np.float32).tobytes()
    got = np.concatenate([part.losses for part in said])
    assert got[~np.isnan(got)].tobytes() == np.array(losses, np.float32).tobytes()
    assert device.names == names


@pytest.mark.slow
def test_hostile_calls_write_nothing_outside_and_change_nothing_when_refused(cc: str) -> None:
    sources = [harness.HERE / "fuzz_online.c", harness.CORE / "online.c"]
    program = harness.compile_once(cc, sources, *harness.SANITIZED)
    calls, refused = map(int, harness.run(program, 1, 100_000).split())
    assert calls >= 100_000
    assert refused > 10_000
