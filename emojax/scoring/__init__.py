"""Scores of a fold, and the classical classifiers to compare the network with."""
