"""Reports of a run: one renderer per file.  Nothing to edit here when you add one."""
