"""Pruning: orders, curves, smaller checkpoints."""
