"""What papers say of a model's heads beside what is measured there: the comparison, the run that it needs, the board."""
