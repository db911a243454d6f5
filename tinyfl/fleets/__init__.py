"""Fleets brought up: simulated devices, emulated boards, boards on ports, and all of them mixed."""
