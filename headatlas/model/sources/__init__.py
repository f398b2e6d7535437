"""Where models come from: names, hubs, folders, GGUF files, the cache."""
