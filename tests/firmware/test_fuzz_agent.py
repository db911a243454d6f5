"""The fuzzer's corpus, run again without the fuzzer: every branch that it has found, under both sanitizers."""

from pathlib import Path

import harness
import peer
import pytest

CORPUS = Path(__file__).parent / "corpus"


@pytest.mark.slow
def test_the_corpus_runs_clean_under_sanitizers(cc: str, tmp_path: Path) -> None:
    sources = [harness.HERE / "fuzz_agent.c", *peer.SOURCES]
    replay = harness.compile_c(cc, tmp_path / "replay", sources, *harness.SANITIZED, *peer.FLAGS, "-DREPLAY")
    inputs = sorted(CORPUS.iterdir())
    assert len(inputs) > 50
    assert harness.run(replay, *inputs) == f"{len(inputs)} inputs\n"
