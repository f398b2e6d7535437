"""A small translation model trained here, in which the heads of the papers on translation come out with known truth."""
