"""Import customers from files."""
