"""What `transaction` and `statement` commands read of headquarters' database."""
