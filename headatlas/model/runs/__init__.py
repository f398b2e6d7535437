"""Runs that reuse earlier ones: cached forward passes, the residual stream, token embeddings."""
