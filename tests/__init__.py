"""Tests by what they need: unit (nothing), integration (servers), acceptance (the command line), faults (kill -9)."""
