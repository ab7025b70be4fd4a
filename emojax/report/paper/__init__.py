"""What a paper needs of a run, made from metrics.json alone: methods, references, limits."""
