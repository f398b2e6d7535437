"""Path patching: the effect of one head through chosen receivers alone."""
