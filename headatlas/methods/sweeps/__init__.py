"""Sweeps: one intervention on every head in turn, and the effect of each."""
