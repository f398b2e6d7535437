"""Many models mined into one folder, with one page that shows them side by side."""
