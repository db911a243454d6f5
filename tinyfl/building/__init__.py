"""Firmware: board manifests, compilers, images, and their use of flash and RAM."""
