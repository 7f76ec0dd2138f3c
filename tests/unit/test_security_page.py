"""docs/security.md: its tables are what script/security_tables.py writes."""

import re

import pytest

from harness.answers import ROOT, ROWS
from harness.policy_classes import CLASSES
from harness.refusals import KINDS
from script import providers_table, security_tables

PAGE = (ROOT / "docs" / "security.md").read_text("utf-8")


def test_the_page_is_current():
    fresh = security_tables.refreshed(PAGE, ROWS)
    assert fresh == PAGE, "run python3 -m script.providers_table"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("| expired | refused |", "| expired | believed |"),
        ("`railway`", "`upstash`"),
        ("| right servers by another name, pinned | 2 |", "| right servers, pinned | 3 |"),
    ],
)
def test_another_table_would_be_noticed_and_is_renewed(old, new, tmp_path, monkeypatch, capsys):
    assert old in PAGE
    page = tmp_path / "security.md"
    page.write_text(PAGE.replace(old, new), "utf-8")
    monkeypatch.setattr(providers_table, "SECURITY", page)
    assert providers_table.main(["--check"]) == 1
    assert "security.md is stale: run" in capsys.readouterr().err
    assert providers_table.main([]) == 0
    assert page.read_text("utf-8") == PAGE


def test_a_changed_row_is_listed_elsewhere():
    changed = ROWS | {"upstash": ROWS["upstash"] | {"ca": "own"}}
    now = security_tables.classes(ROWS).splitlines()
    then = [line for line in security_tables.classes(changed).splitlines() if line not in now]
    assert [line.split(" | ")[0] for line in then] == ["| `system_ca`", "| `given_ca`"]


def test_a_page_without_its_markers_is_refused():
    with pytest.raises(ValueError, match="docs/security.md must hold these two lines"):
        security_tables.refreshed("# Security\n", ROWS)


def test_every_kind_and_every_class_is_on_the_page():
    heads = re.findall(r"^\| ([^|]+) \|", PAGE, re.MULTILINE)
    assert set(KINDS) < set(heads)
    assert {f"`{name}`" for name in CLASSES} < set(heads)


def test_the_command_of_every_count_exists():
    paths = re.findall(r"\./script/test (tests/[^\s`]+)", PAGE)
    assert len(paths) > 4
    for path in paths:
        assert (ROOT / path).is_file(), path
