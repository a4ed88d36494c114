"""How many examples property tests draw: fewest in `make check`, more in `make test`, most in `make soak`."""

from typing import Final

from hypothesis import HealthCheck, settings

EXAMPLES: Final = 50
"""The numbers that tests name are in proportion to this one, which stands for those that name none."""

_PROFILES: Final = {"quick": 10, "normal": 20, "thorough": 500}


def register_profiles() -> None:
    """Register the profiles, and load `normal`. Examples may take long on a busy machine."""
    for name, count in _PROFILES.items():
        settings.register_profile(name, max_examples=count, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("normal")


def examples(count: int) -> settings:
    """Settings of a test that draws `count` examples where others draw `EXAMPLES`."""
    from hypothesis import Phase

    return settings(
        max_examples=max(2, count * settings().max_examples // EXAMPLES), phases=[Phase.reuse, Phase.generate]
    )
