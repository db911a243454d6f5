"""A federation on many machines: the SuperLink, gateways, their keys, and submitted runs."""
