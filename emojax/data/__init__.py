"""A study's data: cohorts, the store of decoded scans, events, cleaning and random phases."""
