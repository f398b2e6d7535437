"""What papers do with heads once they are found; one intervention a file."""
