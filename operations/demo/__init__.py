"""The demonstration: three stores and headquarters on this machine, from till to account number and back."""

from operations.demo.story import DemoFailed, run

__all__ = ["DemoFailed", "run"]
