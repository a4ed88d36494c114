"""The settings of an installation: their tables, loading and printing them."""

from tenten.runtime.settings.load import load_settings
from tenten.runtime.settings.masked import masked
from tenten.runtime.settings.model import (
    AccountNumbers,
    Alarms,
    AttributeSettings,
    Channel,
    ChannelProfile,
    DefaultCustomer,
    HeadquartersSettings,
    LegalEntity,
    SalesOrderNumbers,
    Settings,
)

__all__ = [
    "AccountNumbers",
    "Alarms",
    "AttributeSettings",
    "Channel",
    "ChannelProfile",
    "DefaultCustomer",
    "HeadquartersSettings",
    "LegalEntity",
    "SalesOrderNumbers",
    "Settings",
    "load_settings",
    "masked",
]
