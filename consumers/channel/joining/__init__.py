"""Joining: from a token to a store that headquarters believes, and that has its customers."""
