"""What a model does on one text, to look at: where heads attend, and what it predicts."""
