"""`python -m tenten.cli` is `tenten`."""

from tenten.cli.main import main

if __name__ == "__main__":
    main()
