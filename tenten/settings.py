"""The settings of an installation; `load_settings` returns the effective ones."""

from tenten.runtime.settings import (
    AccountNumbers,
    Alarms,
    Channel,
    DefaultCustomer,
    HeadquartersSettings,
    LegalEntity,
    SalesOrderNumbers,
    Settings,
    load_settings,
    masked,
)

__all__ = [
    "AccountNumbers",
    "Alarms",
    "Channel",
    "DefaultCustomer",
    "HeadquartersSettings",
    "LegalEntity",
    "SalesOrderNumbers",
    "Settings",
    "load_settings",
    "masked",
]
