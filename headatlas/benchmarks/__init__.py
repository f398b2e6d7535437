"""The benchmarks of the catalogue, one a file: how the published files are read, or which task makes it."""
