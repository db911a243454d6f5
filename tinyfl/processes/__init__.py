"""Other processes and this one: child processes, signals, and locks between processes."""
