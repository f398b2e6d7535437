"""Prompts of one's own, from whatever they are kept in, as a Batch."""
