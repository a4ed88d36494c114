"""The command line: `tenten`. One file per noun; `main.py` puts them together."""
