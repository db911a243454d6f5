"""The host's end of the link to boards: messages, wires, one board, a fleet of them (firmware/SPEC.md, wire)."""

import logging

# smpclient logs the frames it drops, which are requested again; a board may send any number of them.
logging.getLogger("smpclient").addHandler(logging.NullHandler())

SINE = "sine"
BUILT_IN = (SINE,)
"""The sources of samples that every firmware of tinyfl has."""

WEIGHTS_HEADER, PROGRAM_HEADER = 48, 40
"""Bytes of a slot's header: for a plan and weights, and for a program (firmware/SPEC.md, slots)."""
