"""Schedules: what is left of a rate in a round. Linear and cosine fall from 1 to 0 over the rounds of a run.

The cosine is that of Loshchilov and Hutter 2017 (arXiv:1608.03983, equation 5), without restarts.
"""

from math import cos, pi

SCHEDULES = ("constant", "linear", "cosine")

STEPS = 100
"""Number of values that a rate on the devices takes: rounds with the same one run in one stretch."""


def scheduled(schedule: str, done: int, rounds: int) -> float:
    """What is left of a rate after ``done`` of ``rounds`` rounds, as a share of the first. Without a schedule: all."""
    if schedule in ("", "constant"):
        return 1.0
    if schedule == "linear":
        return 1 - done / rounds
    return round((1 + cos(pi * done / rounds)) / 2, 12)  # the last bits of cos differ from machine to machine


def in_steps(schedule: str, done: int, rounds: int) -> float:
    """The same in STEPS steps, for rates on the devices."""
    return 1.0 if schedule in ("", "constant") else scheduled(schedule, done * STEPS // rounds, STEPS)
