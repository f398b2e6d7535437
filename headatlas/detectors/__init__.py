"""One detector a file; found by walking this folder."""
