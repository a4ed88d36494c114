"""Headquarters' two workers, and what they share."""
