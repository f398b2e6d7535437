"""What a model opened once need not show again, and what opening borrows from its owner."""
