"""Heads taken away for good: in which order, what that costs, and a smaller checkpoint that does without them."""
