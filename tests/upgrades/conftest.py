import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS / folder) for folder in ("firmware", "link", "simulators")]  # double.py, programs.py and probe.py
