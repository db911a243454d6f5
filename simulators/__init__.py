"""Simulated and emulated fleets."""
