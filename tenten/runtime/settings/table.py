"""What every table of tenten.toml has in common."""

from pydantic import BaseModel, ConfigDict


class SettingsTable(BaseModel):
    """A table of the file: rejects unknown settings; immutable."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)
