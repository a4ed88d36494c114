"""What reads a topic: in a channel, and at headquarters. The two never import each other."""
