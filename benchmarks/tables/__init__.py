"""The numbers of README.md and docs/, rendered from benchmarks/results; see `__main__`."""
