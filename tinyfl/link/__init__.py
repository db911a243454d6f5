"""The host's end of the link to boards: messages, wires, one board, a fleet of them (firmware/SPEC.md, wire)."""

import logging

# What the client logs comes back as an exception, or as an answer; on stderr it would only be said twice.
logging.getLogger("smpclient").addHandler(logging.NullHandler())
