"""The SAEs that ship with the project, and their cards."""
