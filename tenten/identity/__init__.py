"""Who wrote a record: the keys of headquarters and of its stores, and the code by which a record proves its writer."""
