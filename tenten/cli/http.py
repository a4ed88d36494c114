"""The options and the server of commands that serve HTTP."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from tenten.runtime.settings import Settings
    from tenten.web.apps import Served
    from tenten.web.serving.address import HttpAddress
    from tenten.web.serving.certificate import Certificate

HttpAddressText = Annotated[
    str | None,
    typer.Option("--http", metavar="HOST:PORT", show_default=False, help="Serve HTTP there; port 0: any free one."),
]
WithoutTls = Annotated[
    bool,
    typer.Option(
        "--http-without-tls",
        help="Serve other machines without TLS: behind a proxy that has it, or in a network of your own.",
    ),
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        "--token-file",
        metavar="FILE",
        show_default=False,
        help="The access token of the API. Default: api.token beside the database.",
    ),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpOptions:
    """What a command was told about HTTP."""

    address: str | None
    """None: HTTP is not served."""
    without_tls: bool
    token_file: Path | None = None
    """The access token of a channel; None: beside its database."""


@contextmanager
def http_served(
    settings: "Settings",
    options: HttpOptions,
    make_app: "Callable[[Served], ASGIApp]",
    on_failure: "Callable[[], None]" = lambda: None,
) -> "Generator[HttpAddress | None]":
    """Serve an application during the block, if an address is given. Nothing is imported otherwise.

    Raises: `NotInstalled`, `SettingsError`, `AddressRefused`.
    """
    if options.address is None:
        yield None
        return
    address = _address(options.address)
    certificate = _certificate(settings, address, without_tls=options.without_tls)
    try:
        from tenten.web.apps import Served
        from tenten.web.serving.address import address_of, listen
        from tenten.web.serving.server import serving
    except ModuleNotFoundError as missing:
        from tenten.runtime.errors import NotInstalled

        raise NotInstalled(f"{missing.name}, which --http needs,", "web") from missing
    listener = listen(address)
    served = Served(settings=settings, address=address_of(listener), ending=Event(), token_file=options.token_file)
    with serving(make_app(served), listener, certificate, served.ending, on_failure):
        yield served.address


def _address(text: str) -> "HttpAddress":
    """Raises: `typer.BadParameter`."""
    from tenten.web.serving.address import http_address

    try:
        return http_address(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--http") from error


def _certificate(settings: "Settings", address: "HttpAddress", *, without_tls: bool) -> "Certificate | None":
    """The certificate of the settings. Raises: `SettingsError` where other machines would be served without one."""
    from tenten.runtime.errors import SettingsError
    from tenten.web.serving.certificate import Certificate

    if settings.http.certificate is not None and settings.http.key is not None:
        return Certificate(certificate=settings.http.certificate, key=settings.http.key)
    if not address.is_loopback and not without_tls:
        raise SettingsError(
            f"{address} can be reached from other machines, and requests carry access tokens: set certificate and key "
            "of [http] in tenten.toml, or confirm with --http-without-tls"
        )
    return None
