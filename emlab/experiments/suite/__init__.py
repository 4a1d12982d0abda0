"""Several experiments as one."""
