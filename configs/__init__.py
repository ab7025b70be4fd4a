"""Configurations: a docstring says command, hardware, time and result."""
