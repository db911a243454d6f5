"""The agent against firmware/vectors.toml."""

import tomllib
from pathlib import Path

import harness
import peer


def test_the_agent_answers_byte_for_byte(cc: str, tmp_path: Path) -> None:
    board = peer.build(cc, tmp_path)
    for exchange in tomllib.loads((harness.CORE.parent / "vectors.toml").read_text())["exchange"]:
        assert board.exchange(bytes.fromhex(exchange["request"])).hex() == exchange["reply"], exchange["what"]
