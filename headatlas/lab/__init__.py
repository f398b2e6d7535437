"""Models made here, in which the truth is known: planted by construction, trained on toy data, or destroyed."""
