"""The real command line, run as a person would."""
