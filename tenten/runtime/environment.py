"""The variable of the environment with properties of Kafka that must not stand on a command line, such as passwords."""

import json
import os
from typing import Any, Final

from tenten.runtime.errors import SettingsError

KAFKA_VARIABLE: Final = "TENTEN_KAFKA"
"""Further properties of librdkafka, a JSON object. `tenten up` passes its `--kafka` options on with it."""


def kafka_of_environment() -> dict[str, Any]:
    """The properties, empty without the variable. Raises: `SettingsError` for one that is not a JSON object."""
    try:
        properties = json.loads(os.environ.get(KAFKA_VARIABLE) or "{}")
    except ValueError:
        properties = None
    if not isinstance(properties, dict):
        raise SettingsError(f'{KAFKA_VARIABLE}: write a JSON object, for example {{"ssl.key.password": "..."}}')
    return properties
