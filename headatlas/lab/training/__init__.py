"""Training small models so that how heads come to be can be watched, and changed while they do."""
