"""One part against a real broker and real databases."""
