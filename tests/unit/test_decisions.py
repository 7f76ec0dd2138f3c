"""docs/decisions.md: its numbers, at which code points."""

import re

import pytest

from harness.answers import ROOT, SERVICE

PAGE = ROOT / "docs" / "decisions.md"
HEADING = re.compile(r"^### (D-\d\d+)$", re.MULTILINE)
DECISION = re.compile(r"^\*\*", re.MULTILINE)
NUMBERED = re.compile(r"^### (D-\d\d+)\n\n\*\*(.+?)\*\*", re.MULTILINE | re.DOTALL)
INDEXED = re.compile(r"^- \[(D-\d\d+)\]\(#(d-\d\d+)\) (.+)$", re.MULTILINE)
CITED = re.compile(r"\bD-\d\d+\b")
# Whose text may point at a decision.
SUFFIXES = {".py", ".md", ".toml", ".yaml", ".yml", ".conf", ".txt", ""}


def parts(page):
    """The index of the page, and what comes after it."""
    index, title, decisions = page.partition("\n## ")
    assert title, "the page has no sections"
    return index, title + decisions


def problems(page):
    """What is wrong with the numbers of the page, a line each."""
    index, decisions = parts(page)
    numbers = HEADING.findall(decisions)
    found = [f"{number} stands there twice" for number in set(numbers) if numbers.count(number) > 1]
    titles = {n: " ".join(title.split()).rstrip(".") for n, title in NUMBERED.findall(decisions)}
    if len(DECISION.findall(decisions)) > len(titles):
        found.append("a decision has no number")
    for number in numbers:
        if number not in titles:
            found.append(f"{number} has no decision below it")
    listed = {n: title for n, anchor, title in INDEXED.findall(index) if anchor == n.lower()}
    if list(listed.items()) != list(titles.items()):
        wrong = sorted(set(listed.items()) ^ set(titles.items()))
        found.append(f"the index is not that of the decisions: {wrong or 'the order'}")
    return found


def cited():
    """{number: a file that points at it} in the service, the hooks and the harness."""
    found = {}
    for folder in (SERVICE, ROOT / "hooks", ROOT / "harness"):
        for path in folder.rglob("*"):
            if path.is_file() and path.suffix in SUFFIXES:
                for number in CITED.findall(path.read_text("utf-8")):
                    found[number] = path.name
    return found


def test_each_decision_has_a_number_and_stands_in_the_index():
    assert problems(PAGE.read_text("utf-8")) == []


def test_code_points_at_decisions_that_are_there():
    known = HEADING.findall(PAGE.read_text("utf-8"))
    assert len(known) > 60
    assert {number: name for number, name in cited().items() if number not in known} == {}


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("### D-02\n\n", "", "a decision has no number"),
        ("### D-02\n", "### D-01\n", "D-01 stands there twice"),
        ("### D-02\n", "### D-02\n\n### D-99\n", "D-02 has no decision below it"),
        ("- [D-02](#d-02)", "- [D-02](#d-03)", "the index is not that of the decisions"),
        ("**Values reach", "**Numbers reach", "the index is not that of the decisions"),
    ],
)
def test_the_page_turns_red_when(old, new, problem):
    page = PAGE.read_text("utf-8")
    assert old in page
    assert any(problem in text for text in problems(page.replace(old, new, 1)))
