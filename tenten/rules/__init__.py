"""The rules for customers and transactions, the same in stores and at headquarters. No I/O."""
