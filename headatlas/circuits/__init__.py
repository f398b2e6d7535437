"""Circuits: sets of heads and edges that do a task together."""
