"""One generator of token batches a file."""
