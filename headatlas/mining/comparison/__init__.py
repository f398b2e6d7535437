"""Two runs side by side, a model and what was made of it: which heads changed, told from noise, and a page of it."""
