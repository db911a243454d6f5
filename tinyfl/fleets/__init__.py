"""Fleets of simulated devices, emulated boards, boards on ports, and mixtures of them."""
