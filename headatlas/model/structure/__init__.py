"""How an unmodified model is put together, found by watching it run, and the self-check."""
