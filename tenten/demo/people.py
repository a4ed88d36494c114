"""Invented customers, the same in every run."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random
from typing import Final

_FIRST: Final = [
    "Ada",
    "Alan",
    "Amina",
    "Anna",
    "Antoine",
    "Björn",
    "Carmen",
    "Chloé",
    "Daniel",
    "Edsger",
    "Elena",
    "Emil",
    "Fatima",
    "Frances",
    "Grace",
    "Hedy",
    "Hiro",
    "Ida",
    "Ivan",
    "Jürgen",
    "Katherine",
    "Léa",
    "Linus",
    "Lucía",
    "Mária",
    "Margaret",
    "Mei",
    "Nils",
    "Olga",
    "Omar",
    "Paolo",
    "Radia",
    "Ruth",
    "Sofia",
    "Søren",
    "Tim",
    "Ursula",
    "Víctor",
    "Yuki",
    "Zoë",
]
_LAST: Final = [
    "Álvarez",
    "Andersen",
    "Baker",
    "Bianchi",
    "Brown",
    "Chen",
    "Dubois",
    "Fischer",
    "Garcia",
    "Goldberg",
    "Haddad",
    "Hansen",
    "Hopper",
    "Horváth",
    "Ito",
    "Jansen",
    "Johnson",
    "Kowalski",
    "Lamarr",
    "Larsen",
    "Lovelace",
    "Martin",
    "Mehta",
    "Moreau",
    "Müller",
    "Nguyen",
    "Novák",
    "Okafor",
    "Perlman",
    "Rossi",
    "Schmidt",
    "Silva",
    "Singh",
    "Sørensen",
    "Suzuki",
    "Tanaka",
    "Turing",
    "Ueda",
    "Williams",
    "Zhang",
]
_STREETS: Final = (
    "Main Street",
    "Oak Avenue",
    "Station Road",
    "Harbor Lane",
    "Market Square",
    "Mill Road",
    "Park Avenue",
)
_CITIES: Final = (
    ("Houston", "TX", "77002", "713"),
    ("Seattle", "WA", "98101", "206"),
    ("Boston", "MA", "02108", "617"),
    ("Denver", "CO", "80202", "303"),
    ("Portland", "OR", "97205", "503"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """A customer at a till."""

    number: int
    title: str
    first_name: str
    last_name: str
    email: str
    phone: str
    street: str
    city: str
    state: str
    postal_code: str


def people(seed: int) -> Iterator[Person]:
    """An endless sequence of people; the same seed gives the same people."""
    random = Random(seed)
    number = 0
    while True:
        number += 1
        city, state, postal_code, area = random.choice(_CITIES)
        yield Person(
            number=number,
            title=random.choice(("", "", "Dr.", "Mr.", "Ms.")),
            first_name=random.choice(_FIRST),
            last_name=random.choice(_LAST),
            email=f"customer-{seed}-{number}@example.com",
            phone=f"+1{area}555{random.randrange(10_000):04d}",
            street=f"{random.randrange(1, 999)} {random.choice(_STREETS)}",
            city=city,
            state=state,
            postal_code=postal_code,
        )


def write_customers_file(path: Path, count: int, seed: int = 1) -> None:
    """A CSV file of customers for `tenten customer import`, with a header of common names."""
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(
            [
                "CustomerKey",
                "Title",
                "FirstName",
                "LastName",
                "EmailAddress",
                "Phone",
                "Street",
                "City",
                "State",
                "PostalCode",
                "Country",
            ]
        )
        for person in islice(people(seed), count):
            rows.writerow(
                (
                    f"{person.number:06d}",
                    person.title,
                    person.first_name,
                    person.last_name,
                    person.email,
                    person.phone,
                    person.street,
                    person.city,
                    person.state,
                    person.postal_code,
                    "US",
                )
            )
