"""Flashes firmware to boards: selection, methods, tools, explanation of failures, and verification."""
