"""The table `[http]` of tenten.toml."""

from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Self

from pydantic import BeforeValidator, Field, IPvAnyNetwork, ValidationInfo, model_validator

from tenten.runtime.settings.table import SettingsTable
from tenten.runtime.settings.values import Origin, lowercase, settings_directory


class HttpSettings(SettingsTable):
    """How processes with `--http` serve."""

    certificate: Path | None = None
    """The certificate of TLS, in PEM, with those that lead to its authority."""
    key: Path | None = None
    """Its private key, in PEM."""
    behind_tls: bool = False
    """Whether a proxy in front of the server has TLS: sessions of browsers are then kept from plain connections."""
    hosts: tuple[Annotated[str, BeforeValidator(lowercase)], ...] = ()
    """Further names by which browsers and tills reach the server."""
    origins: tuple[Origin, ...] = ()
    """Origins of other web pages that may use the API for tills, such as https://till.example.com; empty: none."""
    requests_per_second_max: int = Field(default=500, ge=1, le=100_000)
    """More are answered 429; in a burst as many as in two seconds are served."""
    proxy_user_header: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9-]*$")] | None = None
    """The header in which a proxy names the user of the dashboard whom it has authenticated; None: no such proxy."""
    proxy_addresses: tuple[IPvAnyNetwork, ...] = (IPv4Network("127.0.0.1/32"), IPv6Network("::1/128"))
    """The addresses from which that header is believed."""
    proxy_operators: tuple[str, ...] = ()
    """Its users who may act; every other one is a viewer."""

    @property
    def is_secure(self) -> bool:
        """Whether browsers come by TLS."""
        return self.certificate is not None or self.behind_tls

    @model_validator(mode="after")
    def _fits_together(self, info: ValidationInfo) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together")
        for name in ("certificate", "key"):
            if (file := getattr(self, name)) is not None:
                object.__setattr__(self, name, (settings_directory(info) / file).resolve())
        return self
