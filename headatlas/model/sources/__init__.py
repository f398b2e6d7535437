"""Where models come from: names, hubs, folders, GGUF files, the cache."""

from headatlas.renamed import old_names

__getattr__ = old_names(__name__)
