"""`tenten headquarters recover`: what a restored database lost, taken back from the topics."""
