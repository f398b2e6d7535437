"""Caches in which each key-value head holds a span of its own.

span: how much is held; parts: the tensors; cache: a transformers cache made of them; own: the model's own cache of a text.
"""
