"""Scores of a fold, and the classical classifiers beside the network."""
