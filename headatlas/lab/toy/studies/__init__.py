"""Toys of papers, one a file: a Study is found by being here."""
