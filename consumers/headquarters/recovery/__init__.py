"""`tenten headquarters recover`: bring a restored database to what the topics prove."""
