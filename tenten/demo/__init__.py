"""The demonstration: three stores and headquarters on this machine, from till to account number and back."""

from tenten.demo.stage import DemoFailed
from tenten.demo.story import run

__all__ = ["DemoFailed", "run"]
