"""The agent against firmware/vectors.toml."""

import tomllib

import harness
import peer


def test_the_agent_answers_byte_for_byte(cc: str) -> None:
    board = peer.build(cc, "-fsanitize=undefined", "-fno-sanitize-recover=all")
    for exchange in tomllib.loads((harness.CORE.parent / "vectors.toml").read_text())["exchange"]:
        assert board.exchange(bytes.fromhex(exchange["request"])).hex() == exchange["reply"], exchange["what"]
