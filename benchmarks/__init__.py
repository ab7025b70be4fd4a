"""Measurements of emojax, beside peers where there are some; each file has its command."""
