"""What heads do with the words of sentences whose syntax is known: dependencies, trees, constituents, roles."""
