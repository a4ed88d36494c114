"""`python -m operations.cli` is `tenten`."""

from operations.cli.main import main

if __name__ == "__main__":
    main()
