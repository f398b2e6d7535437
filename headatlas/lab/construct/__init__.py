"""The parts of planted models: words, codes, position kernels, the residual stream's layout, and the weights."""
