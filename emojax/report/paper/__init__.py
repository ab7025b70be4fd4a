"""Material for a paper, made from metrics.json alone: methods, references, limits."""
