"""Run directories: the files of a run, its evaluation, and later adaptation."""
