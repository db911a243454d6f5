"""In PYTHONPATH, no matplotlib: a command's run costs half without its figures (tests/conftest.py)."""

raise ImportError("left out in tests")
