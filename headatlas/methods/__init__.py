"""Sweeps over heads and what they mean: scan, verdict, ablation, patching ..."""
