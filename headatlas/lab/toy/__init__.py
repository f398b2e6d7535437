"""Toys: what they are trained on, what is watched while they train, and papers' claims about them with their bounds."""
