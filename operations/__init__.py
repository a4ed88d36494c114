"""What a person runs or looks at: the command line, local services, the demo, health and metrics."""
