import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

for folder in ("firmware", "link", "fleet"):  # their boards and ports serve here too
    sys.path.insert(0, str(Path(__file__).parents[1] / folder))

from workbench import Workbench  # noqa: E402


@pytest.fixture
def workbench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workbench]:
    """A bench with nothing on it, and no tool but those it is given."""
    with Workbench(tmp_path, monkeypatch) as workbench:
        yield workbench
