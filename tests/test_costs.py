"""What tinyfl plan says, against what an emulated board really does."""

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinyfl import costs
from tinyfl.algorithms import Inner, Phase
from tinyfl.building import boards
from tinyfl.codecs import Codec, Kind
from tinyfl.codecs.down import PLAIN, Down
from tinyfl.costs.models import inner_loop
from tinyfl.errors import ConfigError, DoesNotFit
from tinyfl.fleets.linked import in_passes
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


def written(net: Network, inner: Inner, board: boards.Board, elf: Path, held: bool) -> tuple[set[int], int]:
    """The addresses from the arena on that a board writes in two rounds, and the stack it uses: what is not as it was filled
    before. Filled twice, with other bytes, since a board may write those very bytes."""
    from tinyfl.simulators.unicorn import Machine

    assert board.memory
    changed, stack = set[int](), 0
    for filling in (0x5A, 0xA5):
        machine = Machine(elf, board, 1)
        start = machine.symbol("tinyfl_arena")
        machine._core.mem_write(start, bytes([filling]) * (board.memory.ram.end - start))
        stack = asyncio.run(learn(machine, net, inner, held))
        now = machine._core.mem_read(start, board.memory.ram.end - start)
        changed |= {start + at for at, byte in enumerate(now) if byte != filling}
    return changed, stack


async def learn(machine: Any, net: Network, inner: Inner, held: bool) -> int:
    """Sends plan and weights, has the board learn from three fed samples in each of two rounds, and returns the stack it has
    used."""
    from tinyfl.link.board import LinkedBoard, Round, floats
    from tinyfl.link.status import BoardState
    from tinyfl.link.wire import MachineWire

    board = await LinkedBoard.connect(MachineWire(machine).open)
    await board.put_plan(net.plan.bytes)
    theta = net.initial_weights(1)
    samples = np.random.default_rng(2).uniform(0, 1, (3, net.inputs + net.outputs)).astype(np.float32)
    for round in range(2):
        await board.put_weights(theta, held=held)
        await board.train(Round(round, 0, 0, inner.to_bytes(), hashlib.sha256(floats(theta)).digest(), saved=round))
        assert (await board.feed(in_passes(samples, inner) if net.embeds else samples)).state == BoardState.learnt
    return (await board.status()).stack


def loops(net: Network) -> dict[str, Inner]:
    """Inner loops of three samples."""
    head = net.weighted_layers[-1].bit
    return {
        "single samples": Inner(samples=3, rate=0.01),
        "batches": Inner(samples=3, batch=2, rate=0.01),
        "a pull": Inner(samples=3, rate=0.01, pull=0.1),
        "batches with a pull": Inner(samples=3, batch=2, rate=0.01, pull=0.1),
        "a returned gradient": Inner(Phase(1, 0.01), Phase(2, 0.0), returns="gradient"),
        "a local head": Inner(Phase(1, 0.01, layers=head), Phase(2, 0.01), local=head),
        "a kept head": Inner(Phase(1, 0.01, layers=head), Phase(2, 0.01), local=head, kept=True),
        "all": Inner(Phase(1, 0.01, pull=0.1), Phase(2, 0.01), local=head, kept=True, returns="gradient"),
    }


EMBEDDINGS = {name: Network(name, net.shape, net.layers, Loss.prototypes) for name, net in NETS.items()}


@pytest.mark.parametrize("name", EMBEDDINGS)
def test_a_board_learns_prototypes_in_just_the_ram_that_the_plan_counts(name: str) -> None:
    demand_bytes(EMBEDDINGS[name], Inner(Phase(3, 0.01, support=2, ways=2), returns="gradient"))


@pytest.mark.parametrize("what", loops(NETS["conv"]))
@pytest.mark.parametrize("name", NETS)
def test_a_board_writes_the_ram_that_the_plan_counts_to_its_last_byte_and_no_other(name: str, what: str) -> None:
    demand_bytes(NETS[name], loops(NETS[name])[what])


def test_a_board_holds_weights_and_what_its_codec_loses_in_just_the_ram_that_the_plan_counts() -> None:
    net, inner = NETS["mlp"], Inner(samples=3, rate=0.01).sent_as(Codec(Kind.int8), residual=True)
    demand_bytes(net, inner, Down(Codec(Kind.int8), True, net.arrays()))


def demand_bytes(net: Network, inner: Inner, down: Down = PLAIN) -> None:
    from tinyfl.fleets.emulation import firmware
    from tinyfl.simulators.unicorn import Machine

    board = boards.load("microbit-v2")
    cost = costs.learning_cost(net, board, inner=inner, down=down)
    made = firmware(board, "zig")
    assert made.size
    assert board.memory
    assert cost.fits
    parts, memory = cost.ram.parts, board.memory
    assert parts["stack"] == memory.stack
    assert parts["agent"] == made.size.ram[".data"] + made.size.ram[".bss"]

    fixed = parts["stack"] + parts["agent"] + parts.get("padding", 0)
    arena = cost.ram.taken - fixed
    start = Machine(made.elf, board, 1).symbol("tinyfl_arena")
    assert start == memory.ram.origin + fixed
    assert arena == net.arena_bytes(inner) + down.held_bytes
    changed, stack = written(net, inner, board, made.elf, held=down.delta)
    assert changed == set(range(start, start + arena))
    assert 0 < stack <= memory.stack


def test_what_does_not_fit_is_refused_with_numbers_that_add_up_and_a_cure_that_fits() -> None:
    net, board = reference("conv-omniglot"), boards.load("microbit-v2")
    cost = costs.learning_cost(net, board)
    assert not cost.fits
    assert not any(work.measured for work in cost.work)
    with pytest.raises(
        DoesNotFit, match=r"needs 130,368 bytes of RAM to learn; microbit-v2 has 122,\d{3} .*--freeze 2"
    ) as refused:
        costs.demand_fit(net, [cost], freeze=0, inner=costs.ROUND)
    assert refused.value.exit_code == 12
    assert "mps2-an386" in str(refused.value)
    frozen = costs.learning_cost(net.frozen(2), board)
    assert frozen.fits
    costs.demand_fit(net, [cost, frozen], freeze=0, inner=costs.ROUND)
    kept = inner_loop(net, None, None, None, "int4", feedback=True)
    with pytest.raises(DoesNotFit, match=r"needs 417,660 bytes of RAM to learn; mps2-an386 .* without --feedback \(226,132 "):
        costs.demand_fit(net, [costs.learning_cost(net, boards.load("mps2-an386"), inner=kept)], freeze=0, inner=kept)


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
        (("plan", "mlp-32", "--board", "nowhere"), "no board is called"),
        (("plan", "conv-omniglot", "--freeze", "6"), "Give --freeze 0 to 5"),
        (("plan", "conv-omniglot", "--feedback"), "fp32 loses nothing: give --up"),
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


def test_the_memory_of_a_users_sources_counts(tmp_path: Path) -> None:
    text = '#include "source.h"\nstatic float held[1000];\n' + (
        "static int s(const tinyfl_stream *t, uint32_t i, float *x, float *y)\n{\n"
        "    held[i % 1000] += (float)t->round;\n    *x = *y = held[(i + 1) % 1000];\n    return TINYFL_OK;\n}\n"
        'const tinyfl_source tinyfl_sources[] = {{"s", s}, {NULL, NULL}};\n'
    )
    (tmp_path / "s.c").write_text(text)
    net, board = network("mlp-4", (1,), 1, Loss.mean_squared_error, Activation.tanh), boards.load("stm32f405")
    without, own = costs.learning_cost(net, board), costs.learning_cost(net, board, sources=[tmp_path / "s.c"])
    assert own.ram.parts["sources"] == 4000
    assert abs(own.ram.parts["agent"] - without.ram.parts["agent"]) < 16  # what lies between them is aligned
    assert own.ram.taken >= without.ram.taken + 4000
