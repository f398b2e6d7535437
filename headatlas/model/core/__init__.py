"""The view into attention: layers as data, the dispatch of attention calls, one forward pass, what a watcher sees and an edit changes."""
