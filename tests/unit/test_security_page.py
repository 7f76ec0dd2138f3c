"""docs/security.md: the refusal matrix has the kinds and the counts of the live tests."""

import re

import providers_table
import pytest

from harness.answers import ROOT, ROWS, STRICTNESS
from harness.refusals import (
    KINDS,
    TRIES,
    VERIFYING,
    WRONG_CERTIFICATE,
    accepted,
    counts,
    matrix,
    refused,
)

PAGE = (ROOT / "docs" / "security.md").read_text("utf-8")
COMMAND = "./script/test tests/live/test_impostors.py"


def table(heading, page=PAGE):
    """Return {first cell: the other cells} of the table with this first heading."""
    _, _, after = page.partition(f"| {heading} |")
    rows = []
    for line in after.splitlines()[2:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return {first: rest for first, *rest in rows}


def results(rows):
    """Return {kind of bad server: its results with verification and without}."""
    # The server itself ends this connection, whatever the service does.
    by_server = {"no client certificate": ["refused by the server (2)"] * 2}
    pinned = {kind for key in rows for kind in accepted(rows[key])}
    assert all(any(kind in refused(rows[key]) for key in rows) for kind in KINDS)
    return {
        kind: [
            "refused; the right server, where pinned (1)" if kind in pinned else "refused",
            "believed" if kind in WRONG_CERTIFICATE else "refused",
        ]
        for kind in KINDS
    } | by_server


def stale(page):
    """Return what the page says wrongly about the refusal matrix."""
    published = table("What", page)
    found = [
        f"{what}: {number} are tried"
        for what, number in counts(ROWS).items()
        if published.get(what, [""])[0] != str(number) or f"`{COMMAND}`" not in published[what]
    ]
    if f"at least {TRIES * counts(ROWS)[VERIFYING]} connections" not in page:
        found.append("the number of connections differs")
    shown = table("Bad server", page)
    if list(shown) != list(KINDS):
        found.append("the kinds of bad servers differ")
    found += [
        f"{kind}: {', '.join(cells)}"
        for kind, cells in results(ROWS).items()
        if shown.get(kind, cells) != cells
    ]
    return found


def test_the_page_has_the_kinds_and_the_counts_of_the_live_tests():
    assert stale(PAGE) == []


@pytest.mark.parametrize("what", counts(ROWS))
def test_another_count_would_be_noticed(what):
    number = counts(ROWS)[what]
    assert f"| {what} | {number} |" in PAGE
    page = PAGE.replace(f"| {what} | {number} |", f"| {what} | {number + 1} |")
    assert stale(page) == [f"{what}: {number} are tried"]
    assert providers_table.counted(page, ROWS) == PAGE


def test_another_kind_would_be_noticed():
    assert "| expired |" in PAGE
    assert stale(PAGE.replace("| expired |", "| outdated |")) == ["the kinds of bad servers differ"]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        (
            "| expired | refused | believed |",
            "| expired | refused | refused |",
            "expired: refused, believed",
        ),
        (
            "| plain port | refused | refused |",
            "| plain port | refused | believed |",
            "plain port: refused, refused",
        ),
        (
            "| refused; the right server, where pinned (1) |",
            "| refused |",
            "wrong host: refused; the right server, where pinned (1), believed",
        ),
        (
            "| refused by the server (2) | refused by the server (2) |",
            "| refused by the server (2) | believed |",
            "no client certificate: refused by the server (2), refused by the server (2)",
        ),
    ],
)
def test_another_result_would_be_noticed(old, new, problem):
    assert PAGE.count(old) == 1
    assert stale(PAGE.replace(old, new)) == [problem]


def test_the_command_of_every_count_exists():
    for what, cells in table("What").items():
        (path,) = re.findall(r"`\./script/test ([^\s`]+)", cells[-1])
        assert (ROOT / path).is_file(), what


def test_every_row_meets_bad_servers_in_both_ways_to_verify():
    assert len(matrix(ROWS)) == len(set(matrix(ROWS))) == 2 * len(ROWS)


@pytest.mark.parametrize("provider", ROWS)
def test_recommended_is_one_of_the_others_to_the_byte(baked, provider):
    """Because of that, the bad servers need not be met a third time."""
    files = {
        strictness: baked(redis_provider=provider, cert_strictness=strictness).files
        for strictness in STRICTNESS
    }
    assert files["recommended"] == files[ROWS[provider]["cert_reqs"]]
    assert files["required"] != files["optional"] != files["none"]
