"""The interface to Flower: the strategy, and the grid that maps Flower's node ids to a fleet.

Flower's telemetry and update check are off: there is no network traffic without the user's command.
"""

import os

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
os.environ.setdefault("FLWR_DISABLE_UPDATE_CHECK", "1")
