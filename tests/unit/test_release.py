"""script/release.py: which version is ready for a tag, and what is published about it."""

import pytest
import release

REPOSITORY = "org/cookiecutter-rediss"
CHANGELOG = """# Changelog

## 0.2.0 (2026-12-01)

- New.

## 0.1.0 (2026-11-29)

- Old.
"""
PYPROJECT = '[project]\nversion = "0.2.0"\n'
README = f"uvx cookiecutter gh:{REPOSITORY}\ngit clone https://github.com/{REPOSITORY} && cd\n"


def problems(
    version="0.2.0",
    repository=REPOSITORY,
    changelog=CHANGELOG,
    pyproject=PYPROJECT,
    readme=README,
):
    return release.problems(version, repository, changelog, pyproject, readme)


def test_a_version_is_ready():
    assert problems() == []


def test_its_notes_are_its_section_and_no_more():
    assert release.newest(CHANGELOG) == ("0.2.0", "2026-12-01", "- New.")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            {"version": "0.1.0"},
            [
                "pyproject.toml says version 0.2.0, not 0.1.0",
                "CHANGELOG.md begins with 0.2.0, not 0.1.0",
            ],
        ),
        (
            {"pyproject": '[project]\nversion = "0.1.0"\n'},
            ["pyproject.toml says version 0.1.0, not 0.2.0"],
        ),
        (
            {"changelog": CHANGELOG.replace("2026-12-01", "unreleased")},
            ["CHANGELOG.md says (unreleased) where the day of the release belongs"],
        ),
        ({"changelog": CHANGELOG.replace("- New.\n", "")}, ["CHANGELOG.md says nothing of 0.2.0"]),
        (
            {"repository": "fork/cookiecutter-rediss"},
            [f"README.md sends people to {REPOSITORY}, not to fork/cookiecutter-rediss"],
        ),
        (
            {"readme": README.replace("gh:org", "gh:elsewhere")},
            [f"README.md sends people to elsewhere/cookiecutter-rediss, not to {REPOSITORY}"],
        ),
    ],
)
def test_a_version_is_not_ready(change, expected):
    assert problems(**change) == expected


def test_a_changelog_without_versions_is_refused():
    with pytest.raises(ValueError, match="CHANGELOG.md has no line like"):
        release.newest("# Changelog\n")


def test_the_readme_has_an_address_to_compare():
    readme = (release.ROOT / "README.md").read_text("utf-8")
    assert len(release.ADDRESS.findall(readme)) > 3


def test_this_version_is_prepared(capsys):
    changelog = (release.ROOT / "CHANGELOG.md").read_text("utf-8")
    version, date, text = release.newest(changelog)
    readme = (release.ROOT / "README.md").read_text("utf-8")
    repository = release.ADDRESS.search(readme)[1]
    status = release.main([version, repository])
    printed = capsys.readouterr()
    # Between two releases the date, and nothing else, is what is missing.
    if date == "unreleased":
        assert status == 1
        assert printed.err.splitlines() == [
            "CHANGELOG.md says (unreleased) where the day of the release belongs"
        ]
    else:
        assert (status, printed.out) == (0, f"{text}\n")
