"""How papers come into the catalogue: found on arXiv or handed in by a form, proposed with reasons, checked, written."""
