"""The studies that emojax ships, one file each, with a description, the command and variants.

`get_config(variant)` returns the settings; `VARIANTS` maps each variant to its function.
"""
