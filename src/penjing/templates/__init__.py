"""One model template per file.  Nothing to edit here when you add one."""
