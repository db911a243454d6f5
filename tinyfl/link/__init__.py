"""The host's end of the link to boards: messages, wires, one board, a fleet of them (firmware/SPEC.md, wire)."""

import logging

# What smpclient logs are frames that it drops, which are asked for again; a board may send any number of them.
logging.getLogger("smpclient").addHandler(logging.NullHandler())
