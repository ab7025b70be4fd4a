"""Watching a scanner's folder: each volume is decoded as soon as its file is whole.

What is in the folder (`folder`), what a file holds (`scans`, `intake`), which volume is next
(`order`), and what becomes of it (`session`: decoded, written to the `journal`, sent) are five
pieces that do not know each other; `loop` makes one of them.
"""
