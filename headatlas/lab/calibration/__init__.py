"""What calibration counts, and how its counts are kept while it is under way."""
