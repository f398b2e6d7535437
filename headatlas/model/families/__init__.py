"""The model families that work, tried one by one on tiny random models."""
