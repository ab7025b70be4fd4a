"""The two networks, as Flax Linen modules, and the import of their Keras weights."""
