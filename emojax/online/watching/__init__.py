"""Watching of a scanner's folder: each volume is decoded as soon as its file is complete.

The parts do not depend on each other: `folder` lists files, `scans` and `intake` read them, `order`
sorts volumes, and `session` decodes them, writes the `journal` and sends records. `loop` connects
them.
"""
