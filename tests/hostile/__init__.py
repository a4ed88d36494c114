"""A store, or anybody with a store's access to the topics, that attacks headquarters or other stores."""
