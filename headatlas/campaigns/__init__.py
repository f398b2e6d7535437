"""What campaigns mine: lists of models, read without torch."""
