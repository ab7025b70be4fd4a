"""Sharing of a run's work among several processes, and submission of the jobs that do it."""
