"""A federation on many machines: the SuperLink, gateways, their keys, and runs that are handed in."""
