"""The settings as they may be printed."""

from typing import Any, Final

from sqlalchemy import make_url

from tenten.runtime.settings.kafka_properties import is_secret
from tenten.runtime.settings.model import Settings

_MASK: Final = "********"


def masked(settings: Settings) -> dict[str, Any]:
    """The settings as plain values, with secrets masked."""
    shown = settings.model_dump(mode="json")
    shown["kafka"] = {name: _MASK if is_secret(name) else value for name, value in settings.kafka.items()}
    for table in (shown["headquarters"], *shown["channels"].values()):
        if table["database"] is not None:
            table["database"] = _without_password(table["database"])
    if settings.schema_registry_url is not None:
        shown["schema_registry_url"] = _without_password(settings.schema_registry_url)
    return shown


def _without_password(address: str) -> str:
    url = make_url(address)
    query = {name: _MASK if is_secret(name) else value for name, value in url.query.items()}
    return url.set(query=query).render_as_string(hide_password=True).replace("***@", f"{_MASK}@")
