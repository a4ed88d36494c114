"""The settings of an installation: `load_settings` reads what is in force."""

from tenten.runtime.settings import (
    AccountNumbers,
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
    "Channel",
    "DefaultCustomer",
    "HeadquartersSettings",
    "LegalEntity",
    "SalesOrderNumbers",
    "Settings",
    "load_settings",
    "masked",
]
