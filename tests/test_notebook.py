"""The notebook of the docs runs from its first cell to its last, in a kernel of its own, as a reader would run it."""

import asyncio
import importlib
from pathlib import Path
from typing import Any

import pytest
from test_docs import ROOT

pytestmark = pytest.mark.slow
NOTEBOOK = ROOT / "docs" / "notebook.ipynb"


def executed(notebook: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[Any]]:
    """The outputs of each code cell."""
    client = pytest.importorskip("nbclient", reason="needs nbclient: pip install 'tinyfl[test]'")
    pytest.importorskip("ipykernel", reason="needs ipykernel: pip install 'tinyfl[test]'")
    for variable in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(variable, str(folder / ".jupyter"))  # not the user's own
    where = {"metadata": {"path": str(folder)}}
    asyncio.run(client.NotebookClient(notebook, timeout=600, kernel_name="python3", resources=where).async_execute())
    return [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]


def texts(outputs: list[Any]) -> list[str]:
    return [output["data"]["text/plain"] for output in outputs if "data" in output]


@pytest.mark.usefixtures("built_before", "tensorflow")
def test_the_notebook_of_the_docs_does_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pandas", reason="needs pandas: pip install 'tinyfl[test]'")
    notebook = importlib.import_module("nbformat").read(NOTEBOOK, 4)
    assert not any(cell.get("outputs") for cell in notebook.cells)
    _, fleet, plot, boards, exported, pushed = executed(notebook, tmp_path, monkeypatch)
    progress, table = texts(fleet)
    assert progress == "evaluating: 4 of 4"
    learnt, start = map(float, next(line for line in table.splitlines() if line.split()[0] == "10").split()[1:])
    assert learnt > start + 0.2
    assert any("image/png" in output["data"] for output in plot)
    assert texts(boards)[-1] == "True"
    assert [output.output_type for output in exported] == ["execute_result"]  # nothing of TensorFlow's log
    assert texts(pushed)[-1].split()[-1] == "pushed"


def test_a_cell_shows_progress_in_one_line_and_runs_boards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, built_before: None
) -> None:
    nbformat = pytest.importorskip("nbformat", reason="needs nbclient: pip install 'tinyfl[test]'")
    source = """
import tinyfl
from concurrent.futures import ThreadPoolExecutor

tiny = {"task": "sine", "network": "mlp-2", "cohort": 2, "rounds": 3, "tasks": 4, "adapt_lr": 0.01}
board = tinyfl.simulate(**tiny, fleet=[{"board": "posix", "count": 2}]).result["theta_sha256"]
silent = tinyfl.simulate(**tiny, devices=2, progress=lambda _: None).result["theta_sha256"]
with ThreadPoolExecutor(2) as threads:
    runs = [threads.submit(tinyfl.simulate, **tiny, devices=2) for _ in range(2)]
[each.result().result["theta_sha256"] for each in runs] == [board, silent]
"""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    (outputs,) = executed(notebook, tmp_path, monkeypatch)
    assert texts(outputs) == ["evaluating: 4 of 4"] * 3 + ["True"]
