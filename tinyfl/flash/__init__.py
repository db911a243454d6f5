"""Firmware onto boards: which, how, by which tool, why it failed, and whether it runs."""
