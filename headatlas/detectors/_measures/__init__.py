"""Measures that several detectors share."""
