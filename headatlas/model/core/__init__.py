"""The view into attention: dispatch, one forward pass, what a watcher sees and an edit changes."""
