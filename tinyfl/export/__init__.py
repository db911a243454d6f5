"""Exports networks as TFLite files and C arrays, and measures and runs them."""
