"""Sensors: recorded readings, and what the sources of a user's C files make of them on this machine."""
