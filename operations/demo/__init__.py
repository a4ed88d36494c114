"""The demonstration: three stores and headquarters on this machine, from till to account number and back."""

from operations.demo.stage import DemoFailed
from operations.demo.story import run

__all__ = ["DemoFailed", "run"]
