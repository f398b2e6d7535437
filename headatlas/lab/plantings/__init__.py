"""Plantings, one file each: models in which the heads of one detector's type, and their look-alikes, are known."""
