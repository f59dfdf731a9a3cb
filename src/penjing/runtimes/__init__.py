"""What loads, runs and times a model; one file each.  Nothing to edit here when you add one."""
