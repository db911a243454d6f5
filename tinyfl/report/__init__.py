"""A run's report page: figures, tables, and the verdict."""
