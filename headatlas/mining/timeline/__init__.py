"""Timelines: when did each head come to be what it is, over the checkpoints of a training."""
