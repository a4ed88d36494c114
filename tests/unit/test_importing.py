"""Files of customers: which columns are understood, how lines are read, what plain text says."""

from pathlib import Path

import pytest

from tenten.producers.importing.column_mapping import choose_columns, guess
from tenten.producers.importing.file_reader import LINE_CHARACTERS_MAX, Line, open_lines
from tenten.producers.till.customer_input import TEXT_FIELDS, NewAddress, fields_from_texts
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
def test_common_names_of_columns_are_understood(column: str, field: str | None) -> None:
    """However they are written; what is not known is left alone."""
    assert guess(column) == field


def test_every_field_is_understood_by_its_own_name() -> None:
    """A file whose columns are called like the fields needs no mapping."""
    assert {guess(field) for field in TEXT_FIELDS} == set(TEXT_FIELDS)


def test_what_the_user_names_wins_over_what_is_guessed() -> None:
    """A named field is not guessed for another column, and a column with nothing behind it is left out."""
    # when
    columns = choose_columns(
        ["Mobile", "Phone", "Email", "No", "Name"], {"Phone": "phone", "Email": "", "Name": "last_name"}, "No"
    )
    # then
    assert columns.fields == {"Phone": "phone", "Name": "last_name"}
    assert columns.key == "No"


def test_of_two_columns_that_look_like_one_field_the_first_is_used() -> None:
    """The other one is reported as unused."""
    assert choose_columns(["Phone", "Mobile"], {}, None).fields == {"Phone": "phone"}


@pytest.mark.parametrize(
    ("mapping", "key", "message"),
    [
        ({"Frist": "first_name"}, None, r"no column Frist \(did you mean First\?\)"),
        ({"First": "frist_name"}, None, r"no field frist_name \(did you mean first_name\?\)"),
        ({"First": "last_name", "Last": "last_name"}, None, "more than one column is mapped to last_name"),
        ({}, "Number", "no column Number"),
        ({}, None, "no column says anything known"),
        ({"First": "attributes/"}, None, "no field attributes/"),
    ],
)
def test_a_mapping_that_makes_no_sense_is_refused(mapping: dict[str, str], key: str | None, message: str) -> None:
    """With the nearest name that exists."""
    with pytest.raises(ImportRejected, match=message):
        choose_columns(["First", "Last"], mapping, key)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_what_divides_the_header(tmp_path: Path, delimiter: str) -> None:
    """A comma within a quoted name divides nothing."""
    # given
    header, row = ["First", '"Last, maiden"', "City"], ["Ada", "Lovelace", '"Bath, UK"']
    # when
    lines = read(tmp_path, f"{delimiter.join(header)}\r\n{delimiter.join(row)}\r\n")
    # then
    assert lines == [Line(number=2, cells={"First": "Ada", "Last, maiden": "Lovelace", "City": "Bath, UK"})]


def test_lines_have_the_numbers_that_an_editor_shows(tmp_path: Path) -> None:
    """Quoted line breaks and blank lines count, and a broken line does not hide the next one."""
    # given
    text = '\ufeffA,B\n"one\ntwo",x\n\n"bad" quote,y\n1,2,3\nlast,z'
    # when
    lines = read(tmp_path, text)
    # then
    assert [(line.number, line.problem is None) for line in lines] == [(2, True), (5, False), (6, False), (7, True)]
    assert lines[0].cells == {"A": "one\ntwo", "B": "x"}
    assert lines[-1].cells == {"A": "last", "B": "z"}


def test_a_line_without_an_end_is_refused_in_bounded_memory(tmp_path: Path) -> None:
    """Only its beginning is ever held, and the line behind it is read."""
    # given
    text = f'{{"first_name": "{"x" * (3 * LINE_CHARACTERS_MAX)}"}}\n{{"first_name": "Ada"}}\n'
    # when
    lines = read(tmp_path, text, "people.jsonl")
    # then
    assert [(line.number, line.problem is None) for line in lines] == [(1, False), (2, True)]


@pytest.mark.parametrize("text", ["[1]", "1", '"x"', "null", "{", "[" * 100_000, '{"a": 1} x'])
def test_what_is_no_json_object_is_refused_as_a_line(tmp_path: Path, text: str) -> None:
    """Whatever it is, the line has a number and a reason."""
    [line] = read(tmp_path, text, "people.jsonl")
    assert line.problem is not None
    assert line.problem.code == "unreadable"


def test_json_values_become_the_texts_they_are_written_as(tmp_path: Path) -> None:
    """A postal code stays what it is, nothing is empty, and lists are no cells."""
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
        (b"A\n", "klingon", "no encoding klingon"),
        (b'"A\n', "utf-8", "does not name columns"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_as_a_whole(
    tmp_path: Path, content: bytes, encoding: str, message: str
) -> None:
    """Before the first line is given."""
    # given
    file = tmp_path / "people.csv"
    file.write_bytes(content)
    # then
    with pytest.raises(ImportRejected, match=message), open_lines(file, encoding):
        pass


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """With its name."""
    with (
        pytest.raises(ImportRejected, match=r"nowhere\.csv cannot be read"),
        open_lines(tmp_path / "nowhere.csv", "utf-8"),
    ):
        pass


def test_a_file_in_another_encoding_is_read_with_it(tmp_path: Path) -> None:
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


def test_plain_text_says_fields_addresses_and_choices() -> None:
    """What a command line or a file says in texts becomes values of their types."""
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
        ({"surname": "x"}, "there is no field surname"),
        ({"customer_type": "robot"}, "customer_type is one of person, organization"),
        ({"receipt_preference": "fax"}, "receipt_preference is one of none, print, email, both"),
    ],
)
def test_plain_text_that_is_not_understood_is_refused(texts: dict[str, str], message: str) -> None:
    """With what there is to choose from."""
    with pytest.raises(ValueError, match=message):
        fields_from_texts(texts)
