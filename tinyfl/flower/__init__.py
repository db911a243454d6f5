"""All that knows Flower: our strategy, and the grid that puts a fleet behind Flower's addresses.

Flower's telemetry and update check are off: nothing reaches out to the network by itself.
"""

import os

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
