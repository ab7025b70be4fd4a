"""Measurements beside peers; see each file for its command."""
