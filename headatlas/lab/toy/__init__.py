"""What the toys are trained on, and the curves of their training."""
