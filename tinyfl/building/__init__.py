"""Firmware: boards' manifests, compilers, images, and what they take of flash and RAM."""
