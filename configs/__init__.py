"""The studies that emojax ships, each a file: what it is, how to run it, and its variants.

`get_config(variant)` returns the settings, and `VARIANTS` has the function of every variant.
"""
