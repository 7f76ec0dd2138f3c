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
PYPROJECT = f"""[project]
version = "0.2.0"
[project.urls]
repository = "https://github.com/{REPOSITORY}"
"""
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
            {"pyproject": PYPROJECT.replace("0.2.0", "0.1.0")},
            ["pyproject.toml says version 0.1.0, not 0.2.0"],
        ),
        (
            {"changelog": CHANGELOG.replace("2026-12-01", "unreleased")},
            ["CHANGELOG.md says (unreleased) where the day of the release belongs"],
        ),
        ({"changelog": CHANGELOG.replace("- New.\n", "")}, ["CHANGELOG.md says nothing of 0.2.0"]),
        (
            {"repository": "fork/cookiecutter-rediss"},
            [
                f"pyproject.toml says that it is at {REPOSITORY}, not at fork/cookiecutter-rediss",
                f"README.md sends people to {REPOSITORY}, not to fork/cookiecutter-rediss",
            ],
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


def test_the_readme_has_the_address_of_pyproject_toml():
    readme, pyproject = (
        (release.ROOT / name).read_text("utf-8") for name in ("README.md", "pyproject.toml")
    )
    right = release.addressed(readme, release.repository_of(pyproject))
    assert readme == right, "run python3 -m script.release --readme"


def test_a_new_address_is_written_wherever_the_readme_has_one(tmp_path, monkeypatch):
    moved = "Ada/cookiecutter-rediss"
    pyproject = PYPROJECT.replace(REPOSITORY, moved)
    for name, text in (("README.md", README), ("pyproject.toml", pyproject), ("CHANGELOG.md", "")):
        (tmp_path / name).write_text(text, "utf-8")
    monkeypatch.setattr(release, "ROOT", tmp_path)
    assert release.main(["--readme"]) == 0
    page = (tmp_path / "README.md").read_text("utf-8")
    assert page == README.replace(REPOSITORY, moved) != README
    assert problems(repository=moved, readme=page, pyproject=pyproject) == []


def test_a_version_without_a_repository_is_refused(capsys):
    with pytest.raises(SystemExit):
        release.main(["0.2.0"])
    assert "it needs a version and a repository, or --readme" in capsys.readouterr().err


def test_this_version_is_prepared(capsys):
    changelog = (release.ROOT / "CHANGELOG.md").read_text("utf-8")
    version, date, text = release.newest(changelog)
    repository = release.repository_of((release.ROOT / "pyproject.toml").read_text("utf-8"))
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
