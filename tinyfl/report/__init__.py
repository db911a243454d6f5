"""The page that a run leaves: figures, tables, and the verdict."""
