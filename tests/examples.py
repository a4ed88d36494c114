"""How many examples property tests draw: all of them in `make test`, a fifth in `make check`."""

from typing import Final

from hypothesis import HealthCheck, settings

EXAMPLES: Final = 50
"""The examples of a test that names no number."""


def register_profiles() -> None:
    """The profiles `thorough`, which is the default, and `quick`. Examples may take long on a busy machine."""
    settings.register_profile(
        "thorough", max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
    settings.register_profile("quick", settings.get_profile("thorough"), max_examples=EXAMPLES // 5)
    settings.load_profile("thorough")


def examples(count: int) -> settings:
    """Settings of a test that draws so many examples, in the profile `thorough`."""
    return settings(max_examples=max(2, count * settings().max_examples // EXAMPLES))
