"""What tinyfl plan says, against what an emulated board really does."""

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinyfl import costs
from tinyfl.algorithms import Inner
from tinyfl.building import boards
from tinyfl.errors import ConfigError, DoesNotFit
from tinyfl.networks import Network, network, reference
from tinyfl.networks.layers import Activation, Conv, Dense, DepthwiseConv, Loss, Pool

pytest.importorskip("unicorn", reason="needs unicorn: pip install 'tinyfl[firmware]'")
pytest.importorskip("ziglang", reason="needs ziglang: pip install 'tinyfl[firmware]'")

NETS = {
    "conv": network("conv-4-8", (12, 12, 1), 5, Loss.softmax_cross_entropy, Activation.leaky_relu),
    "mlp": network("mlp-9-17", (3,), 2, Loss.mean_squared_error, Activation.tanh),
    "mixed": Network(
        "mixed",
        (9, 7, 2),
        (
            Conv(6, same=False),
            Pool(),
            DepthwiseConv(kernel=(2, 3)),
            Pool(average=True, size=None),
            Dense(3, Activation.identity),
        ),
        Loss.sigmoid_cross_entropy,
    ),
}


def written(machine: Any) -> set[int]:
    """Every address of RAM that the board writes from now on; the set grows while it runs."""
    from unicorn import UC_HOOK_MEM_WRITE

    seen: set[int] = set()
    ram = machine.memory.ram

    def note(_core: Any, _access: int, address: int, size: int, _value: int, _data: Any) -> None:
        if ram.origin <= address < ram.end:
            seen.update(range(address, address + size))

    machine._core.hook_add(UC_HOOK_MEM_WRITE, note)
    machine._core.ctl_flush_tb()
    return seen


async def learn(machine: Any, net: Network, batch: int) -> int:
    """Sends plan and weights, has the board learn from three fed samples, and returns the stack it has used."""
    from tinyfl.link.board import LinkedBoard, Round, floats
    from tinyfl.link.wire import MachineWire

    board = await LinkedBoard.connect(MachineWire(machine).open)
    await board.put_plan(net.plan.bytes)
    theta = net.initial_weights(1)
    await board.put_weights(theta)
    samples = np.random.default_rng(2).uniform(0, 1, (3, net.inputs + net.outputs)).astype(np.float32)
    base = hashlib.sha256(floats(theta)).digest()
    await board.train(Round(0, 0, 0, Inner(samples=3, batch=batch, rate=0.01).to_bytes(), base))
    await board.feed(samples)
    return (await board.status()).stack


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("name", NETS)
def test_a_board_writes_the_ram_that_the_plan_counts_to_its_last_byte_and_no_other(name: str, batch: int) -> None:
    from tinyfl.fleets.emulation import firmware
    from tinyfl.simulators.unicorn import Machine

    net, board = NETS[name], boards.load("microbit-v2")
    cost = costs.learning_cost(net, board, batch=batch)
    made = firmware(board, "zig")
    assert made.size
    assert board.memory
    assert cost.fits
    parts, memory = cost.ram.parts, board.memory
    assert parts["stack"] == memory.stack
    assert parts["agent"] == made.size.ram[".data"] + made.size.ram[".bss"]

    machine = Machine(made.elf, board, 1)
    seen = written(machine)
    stack = asyncio.run(learn(machine, net, batch))

    fixed = parts["stack"] + parts["agent"] + parts.get("padding", 0)
    arena = cost.ram.taken - fixed
    start = machine.symbol("tinyfl_arena")
    assert start == memory.ram.origin + fixed
    assert max(seen) == start + arena - 1 == memory.ram.origin + cost.ram.taken - 1
    assert seen >= set(range(start, start + arena))
    assert 0 < stack <= memory.stack
    assert min(seen) >= memory.ram.origin + memory.stack - stack


def test_what_does_not_fit_is_refused_with_numbers_that_add_up_and_a_cure_that_fits() -> None:
    net, board = reference("conv-omniglot"), boards.load("microbit-v2")
    cost = costs.learning_cost(net, board)
    assert not cost.fits
    assert not any(work.measured for work in cost.work)
    with pytest.raises(
        DoesNotFit, match=r"needs 130,368 bytes of RAM to learn; microbit-v2 has 123,\d{3} .*--freeze 2"
    ) as refused:
        costs.demand_fit(net, [cost], freeze=0, batch=1)
    assert refused.value.exit_code == 12
    assert "mps2-an386" in str(refused.value)
    frozen = costs.learning_cost(net.frozen(2), board)
    assert frozen.fits
    costs.demand_fit(net, [cost, frozen], freeze=0, batch=1)


def test_counted_instructions_bound_the_estimate_and_a_frozen_network_costs_less() -> None:
    board = boards.load("mps2-an386")
    net = NETS["conv"]
    forward, step = (work.instructions for work in costs.learning_cost(net, board).work[:2])
    assert costs._estimated(net, board) == pytest.approx((forward, step), rel=0.6)
    assert forward < costs.learning_cost(net.frozen(2), board).work[1].instructions < step


def test_the_verb_prints_costs_and_refuses_by_exit_code(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tinyfl import cli

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr("sys.argv", ["tinyfl", *words])
        with pytest.raises(SystemExit) as left:
            cli.main()
        said = capsys.readouterr()
        return int(left.value.code or 0), said.out, said.err

    code, out, _ = run("plan", "conv-4-8", "--shape", "12x12", "--outputs", "5", "--board", "microbit-v2", "--json")
    assert code == 0
    (cost,) = json.loads(out)["costs"]
    assert cost["fits"]
    assert sum(cost["ram"]["parts"].values()) == cost["ram"]["taken"] <= cost["ram"]["available"]
    assert [work["measured"] for work in cost["work"]] == [True] * 3
    code, out, err = run("plan", "conv-omniglot", "--board", "microbit-v2")
    assert code == 12
    assert "✗" in out
    assert "It fits with --freeze 2" in err
    for words, what in (
        (("plan", "conv-4-8"), "needs --shape and --outputs"),
        (("plan", "conv-4-8", "--shape", "12y12", "--outputs", "5"), "is not a shape"),
        (("plan", "conv-4-8", "--shape", "12", "--outputs", "5"), "needs rows and columns"),
        (("plan", "conv-omniglot", "--board", "posix"), "Name a board with a chip"),
        (("plan", "conv-omniglot", "--board", "nowhere"), "no board is called"),
        (("plan", "conv-omniglot", "--freeze", "6"), "Give --freeze 0 to 5"),
    ):
        code, _, err = run(*words)
        assert (code, what in err) == (2, True), err


def test_a_model_is_named_by_a_run_or_a_file(tmp_path: Path) -> None:
    from tinyfl.costs.models import load_model
    from tinyfl.simulation import simulate

    simulate(task="digits", network="conv-4", rounds=2, tasks=2, shots=(1,), devices=10, cohort=2, out=tmp_path / "run")
    assert load_model(str(tmp_path / "run")) == network(
        "conv-4", (8, 8, 1), 5, Loss.softmax_cross_entropy, Activation.leaky_relu
    )
    with pytest.raises(ConfigError, match="there is no run, file or network"):
        load_model("transformer-12", (8,), 2)
