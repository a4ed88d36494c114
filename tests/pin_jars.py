"""Prints the SHA-512 of Kafka's jars: `python -m tests.pin_jars > tenten/local/kafka_jars.sha512`, after an upgrade.

They are those of the files in the Maven cache. Compare some with the `.sha512` files beside the jars on Maven Central.
"""

import hashlib
import os
from pathlib import Path

from tenten.local.java import fetch_program
from tenten.local.kafka import KAFKA_COORDINATES


def main() -> None:
    """Print a line for each jar."""
    _, _, class_path = fetch_program(KAFKA_COORDINATES, "Apache Kafka", lambda _: None)
    for jar in sorted(map(Path, class_path.split(os.pathsep)), key=lambda jar: jar.name):
        print(f"{hashlib.sha512(jar.read_bytes()).hexdigest()}  {jar.name}")


if __name__ == "__main__":
    main()
