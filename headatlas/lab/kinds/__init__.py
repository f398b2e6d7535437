"""The kinds of heads that can be planted, one a file: its recipe, and where such a head attends."""
