"""Several processes that share the work of a run: the division of it, and the jobs that do it."""
