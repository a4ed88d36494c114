"""`tenten settings`, and what other commands say of headquarters' settings."""

from pathlib import Path

from tests.acceptance.cli import Tenten

DALLAS = '\n[channels.dallas]\nlegal_entity = "usrt"\n'


def test_settings_are_taken_from_the_file_once_and_then_only_applied(company: Tenten) -> None:
    """The upgrade fills a new database; later `diff` and `doctor` report a difference, and `apply` removes it."""
    # given
    toml = company.directory / "tenten.toml"
    company.ok("database", "upgrade", "headquarters")
    assert company.ok("settings", "diff", "tenten.toml", "--json").json == {"added": [], "changed": [], "removed": []}

    # when: the file changes
    toml.write_text(toml.read_text().replace('["US"]', '["US", "TX"]', 1))
    upgraded = company.ok("database", "upgrade", "headquarters")
    differs = company.run("settings", "diff", "tenten.toml", "--json")
    examined = company.run("doctor", "--json").json["checks"]
    # then
    changed = {"added": [], "changed": ["channels.houston.address_books"], "removed": []}
    assert "channels.houston.address_books" in upgraded.err
    assert (differs.code, differs.json) == (1, changed)
    [check] = [check for check in examined if check["what"] == "settings of headquarters"]
    assert not check["ok"]
    assert "channels.houston.address_books" in check["text"]

    # when: another file is applied
    stores = company.directory / "stores.toml"
    stores.write_text(company.ok("settings", "show").out + DALLAS)
    tried = company.ok("settings", "apply", "stores.toml", "--dry-run", "--json")
    company.ok("settings", "apply", "stores.toml", "--operator", "mary")
    again = company.ok("settings", "apply", "stores.toml", "--json")
    refused = company.run("settings", "apply", "tenten.toml")
    applied = company.ok("settings", "apply", "tenten.toml", "--remove", "channels.dallas", "--json")
    # then
    assert tried.json == {"added": ["channels.dallas"], "changed": [], "removed": []}
    assert again.json == {"added": [], "changed": [], "removed": []}
    assert (refused.code, refused.out) == (2, "")
    assert "--remove channels.dallas" in refused.err
    assert applied.json == changed | {"removed": ["channels.dallas"]}
    assert company.ok("settings", "show", "--json").json["channels"]["houston"]["address_books"] == ["TX", "US"]
    history = company.ok("settings", "history", "--json").json
    assert [(change["operator"], change["source"]) for change in history] == [
        (None, "settings apply"),
        ("mary", "settings apply"),
        (None, "database upgrade"),
    ]
    assert "channels.dallas" in company.ok("settings", "history").out


def test_wrong_use_of_settings_apply_is_reported(company: Tenten, tmp_path: Path) -> None:
    """A file that does not exist or has a typing mistake, and a removal that names nothing."""
    company.ok("database", "upgrade", "headquarters")
    (tmp_path / "wrong.toml").write_text(DALLAS.replace("legal_entity", "legal_entitty"))
    for words, problem in (
        (("missing.toml",), "missing.toml"),
        (("wrong.toml",), "did you mean legal_entity?"),
        (("tenten.toml", "--remove", "dallas"), "channels.NAME"),
    ):
        ended = company.run("settings", "apply", *words)
        assert (ended.code, ended.out) == (2, "")
        assert problem in ended.err
