"""Import files: column names, lines, and texts as customer input."""

from pathlib import Path

import pytest

from tenten.producers.importing.column_mapping import choose_columns, guess
from tenten.producers.importing.file_reader import LINE_CHARACTERS_MAX, Line, open_lines
from tenten.producers.till.customer_input import NewAddress
from tenten.producers.till.text_input import TEXT_FIELDS, fields_from_texts
from tenten.runtime.errors import ImportRejected
from tenten.schemas.messages import CustomerType, ReceiptPreference


@pytest.mark.parametrize(
    ("column", "field"),
    [
        ("FirstName", "first_name"),
        ("first_name", "first_name"),
        ("Given Name", "first_name"),
        ("Prefix", "title"),
        ("Title", "title"),
        ("EmailAddress", "email"),
        ("e-mail", "email"),
        ("Phone", "phone"),
        ("Company", "organization_name"),
        ("Street", "street"),
        ("AddressLine1", "street"),
        ("City", "city"),
        ("StateProvinceCode", "state"),
        ("PostalCode", "postal_code"),
        ("Zip", "postal_code"),
        ("Country", "country"),
        ("CountryRegionCode", "country"),
        ("CustomerKey", "key"),
        ("BirthDate", None),
        ("", None),
    ],
)
def test_common_column_names_are_recognised(column: str, field: str | None) -> None:
    """However they are written; unknown names are ignored."""
    assert guess(column) == field


def test_field_names_are_recognised_as_column_names() -> None:
    """A file whose columns are named like the fields needs no mapping."""
    assert {guess(field) for field in TEXT_FIELDS} == set(TEXT_FIELDS)


def test_mapping_overrides_guesses() -> None:
    """A mapped field is not guessed for another column, and a column mapped to nothing is ignored."""
    # when
    columns = choose_columns(
        ["Mobile", "Phone", "Email", "No", "Name"], {"Phone": "phone", "Email": "", "Name": "last_name"}, "No"
    )
    # then
    assert columns.fields == {"Phone": "phone", "Name": "last_name"}
    assert columns.key == "No"


def test_first_of_two_columns_for_one_field_is_used() -> None:
    """The other one is reported as unused."""
    assert choose_columns(["Phone", "Mobile"], {}, None).fields == {"Phone": "phone"}


@pytest.mark.parametrize(
    ("mapping", "key", "message"),
    [
        ({"Frist": "first_name"}, None, r"no column Frist \(did you mean First\?\)"),
        ({"First": "frist_name"}, None, r"unknown field frist_name \(did you mean first_name\?\)"),
        ({"First": "last_name", "Last": "last_name"}, None, "more than one column is mapped to last_name"),
        ({}, "Number", "no column Number"),
        ({}, None, "no column has a known name"),
        ({"First": "attributes/"}, None, "unknown field attributes/"),
    ],
)
def test_invalid_mapping_is_refused(mapping: dict[str, str], key: str | None, message: str) -> None:
    """With the nearest existing name."""
    with pytest.raises(ImportRejected, match=message):
        choose_columns(["First", "Last"], mapping, key)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiter_is_detected_in_the_header(tmp_path: Path, delimiter: str) -> None:
    """A comma within a quoted name is not a delimiter."""
    # given
    header, row = ["First", '"Last, maiden"', "City"], ["Ada", "Lovelace", '"Bath, UK"']
    # when
    lines = read(tmp_path, f"{delimiter.join(header)}\r\n{delimiter.join(row)}\r\n")
    # then
    assert lines == [Line(number=2, cells={"First": "Ada", "Last, maiden": "Lovelace", "City": "Bath, UK"})]


def test_lines_have_the_numbers_that_an_editor_shows(tmp_path: Path) -> None:
    """Quoted line breaks and blank lines count, and a malformed line does not hide the next one."""
    # given
    text = '\ufeffA,B\n"one\ntwo",x\n\n"bad" quote,y\n1,2,3\nlast,z'
    # when
    lines = read(tmp_path, text)
    # then
    assert [(line.number, line.problem is None) for line in lines] == [(2, True), (5, False), (6, False), (7, True)]
    assert lines[0].cells == {"A": "one\ntwo", "B": "x"}
    assert lines[-1].cells == {"A": "last", "B": "z"}


def test_endless_line_is_rejected_in_bounded_memory(tmp_path: Path) -> None:
    """Only its beginning is held in memory, and the next line is read."""
    # given
    text = f'{{"first_name": "{"x" * (3 * LINE_CHARACTERS_MAX)}"}}\n{{"first_name": "Ada"}}\n'
    # when
    lines = read(tmp_path, text, "people.jsonl")
    # then
    assert [(line.number, line.problem is None) for line in lines] == [(1, False), (2, True)]


@pytest.mark.parametrize("text", ["[1]", "1", '"x"', "null", "{", "[" * 100_000, '{"a": 1} x'])
def test_line_that_is_not_a_json_object_is_rejected(tmp_path: Path, text: str) -> None:
    """With its number and a reason."""
    [line] = read(tmp_path, text, "people.jsonl")
    assert line.problem is not None
    assert line.problem.code == "unreadable"


def test_json_values_keep_their_spelling(tmp_path: Path) -> None:
    """A postal code keeps its digits, null is empty, and lists are not cells."""
    # when
    [line] = read(tmp_path, '{"a": 77001, "b": 1.50, "c": true, "d": null, "e": "x", "f": [1]}', "people.ndjson")
    # then
    assert line.cells == {"a": "77001", "b": "1.50", "c": "true", "d": "", "e": "x"}
    assert line.nested == ("f",)


@pytest.mark.parametrize(
    ("content", "encoding", "message"),
    [
        (b"", "utf-8", "is empty"),
        (b"\n", "utf-8", "is blank"),
        (b"A,B,A\n", "utf-8", "more than one column A"),
        (b"A\n1\n\xe9\n", "utf-8", "line 3 of .* is not utf-8"),
        (b"A\n", "klingon", "unknown encoding klingon"),
        (b'"A\n', "utf-8", "does not name columns"),
    ],
)
def test_invalid_file_is_refused_as_a_whole(tmp_path: Path, content: bytes, encoding: str, message: str) -> None:
    """Before the first line is returned."""
    # given
    file = tmp_path / "people.csv"
    file.write_bytes(content)
    # then
    with pytest.raises(ImportRejected, match=message), open_lines(file, encoding):
        pass


def test_missing_file_is_refused(tmp_path: Path) -> None:
    """With its name."""
    with (
        pytest.raises(ImportRejected, match=r"nowhere\.csv cannot be read"),
        open_lines(tmp_path / "nowhere.csv", "utf-8"),
    ):
        pass


def test_file_in_another_encoding_is_read(tmp_path: Path) -> None:
    """UTF-16, as spreadsheets write it."""
    # given
    file = tmp_path / "people.csv"
    file.write_bytes("First\tLast\nÉmile\tÖztürk\n".encode("utf-16"))
    # then
    with open_lines(file, "utf-16") as opened:
        assert [line.cells for line in opened.lines()] == [{"First": "Émile", "Last": "Öztürk"}]
        assert opened.share == 1.0


def read(directory: Path, text: str, name: str = "people.csv") -> list[Line]:
    """The lines of a file with that text."""
    file = directory / name
    file.write_bytes(text.encode())
    with open_lines(file, "utf-8-sig") as opened:
        return list(opened.lines())


def test_texts_become_fields_addresses_and_choices() -> None:
    """Texts of a command line or a file become values of the fields' types."""
    # when
    fields = fields_from_texts(
        {
            "first_name": "Ada",
            "city": "Bath",
            "country": "GB",
            "customer_type": "person",
            "receipt_preference": " Both ",
            "affiliations": "gold; staff;",
            "attributes/size": "38",
            "attributes/note": "",
        }
    )
    # then
    assert fields == {
        "first_name": "Ada",
        "address": NewAddress(city="Bath", country="GB"),
        "customer_type": CustomerType.PERSON,
        "receipt_preference": ReceiptPreference.BOTH,
        "add_affiliations": ["gold", "staff"],
        "attributes": {"size": "38", "note": None},
    }


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({"surname": "x"}, "unknown field surname"),
        ({"customer_type": "robot"}, "customer_type must be one of person, organization"),
        ({"receipt_preference": "fax"}, "receipt_preference must be one of none, print, email, both"),
    ],
)
def test_unknown_fields_and_choices_are_rejected(texts: dict[str, str], message: str) -> None:
    """With the existing ones."""
    with pytest.raises(ValueError, match=message):
        fields_from_texts(texts)
