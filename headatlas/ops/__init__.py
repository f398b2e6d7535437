"""Pure tensor maths and statistics, no model objects."""
