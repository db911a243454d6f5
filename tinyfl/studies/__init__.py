"""Studies: a grid of runs from one file, resumed after any end, and made into one table (docs/studies.md)."""
