"""Numerical helpers that only the functional core imports."""
