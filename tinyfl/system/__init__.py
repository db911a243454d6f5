"""This machine: files, the cache, locks, child processes, signals."""
