"""The parts of the site: each file makes the pages of one."""
