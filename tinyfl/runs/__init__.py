"""Run directories: what a run writes, and what is made of it afterwards."""
