"""Print the notes of a release: what CHANGELOG.md says of a version.

The workflow "Release" runs `python3 -m script.release VERSION OWNER/NAME`. Exit status 1, and the
reasons on stderr, when that version is not ready for a tag.

Where the repository is, stands in pyproject.toml only. `python3 -m script.release --readme` writes
it wherever README.md has an address.
"""

import argparse
import re
import sys
from pathlib import Path

import tomllib

ROOT = Path(__file__).resolve().parent.parent
SECTION = re.compile(r"^## (?P<version>\S+) \((?P<date>[^)]*)\)$", re.MULTILINE)
DATE = re.compile(r"\d{4}-\d\d-\d\d")
GITHUB = "https://github.com/"
# Where the README says that the template is to be had.
ADDRESS = re.compile(r"(\bgh:|https://github\.com/)([\w.-]+/cookiecutter-rediss)")


def newest(changelog: str) -> tuple[str, str, str]:
    """Return version, date and text of the first section. Raises ValueError if there is none."""
    sections = list(SECTION.finditer(changelog))
    if not sections:
        raise ValueError("CHANGELOG.md has no line like: ## 0.1.0 (2026-11-29)")
    first = sections[0]
    end = sections[1].start() if len(sections) > 1 else len(changelog)
    return first["version"], first["date"], changelog[first.end() : end].strip()


def repository_of(pyproject: str) -> str:
    """Return where the template is, as OWNER/NAME."""
    return tomllib.loads(pyproject)["project"]["urls"]["repository"].removeprefix(GITHUB)


def addressed(readme: str, repository: str) -> str:
    """Return the page with this repository in each of its addresses."""
    return ADDRESS.sub(rf"\g<1>{repository}", readme)


def problems(
    version: str, repository: str, changelog: str, pyproject: str, readme: str
) -> list[str]:
    """Return what keeps this version from being released, a line each."""
    found = []
    declared = tomllib.loads(pyproject)["project"]["version"]
    if declared != version:
        found.append(f"pyproject.toml says version {declared}, not {version}")
    noted, date, text = newest(changelog)
    if noted != version:
        found.append(f"CHANGELOG.md begins with {noted}, not {version}")
    if not DATE.fullmatch(date):
        found.append(f"CHANGELOG.md says ({date}) where the day of the release belongs")
    if not text:
        found.append(f"CHANGELOG.md says nothing of {noted}")
    at = repository_of(pyproject)
    if at != repository:
        found.append(f"pyproject.toml says that it is at {at}, not at {repository}")
    for address in sorted({name for _, name in ADDRESS.findall(readme)} - {repository}):
        found.append(f"README.md sends people to {address}, not to {repository}")
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("version", nargs="?", help="for example 0.1.0")
    parser.add_argument("repository", nargs="?", help="where it is released, as OWNER/NAME")
    parser.add_argument("--readme", action="store_true", help="renew the addresses in README.md")
    options = parser.parse_args(arguments)
    changelog, pyproject, readme = (
        (ROOT / name).read_text("utf-8") for name in ("CHANGELOG.md", "pyproject.toml", "README.md")
    )
    if options.readme:
        page = addressed(readme, repository_of(pyproject))
        (ROOT / "README.md").write_text(page, "utf-8", newline="\n")
        return 0
    if not options.repository:
        parser.error("it needs a version and a repository, or --readme")
    found = problems(options.version, options.repository, changelog, pyproject, readme)
    for problem in found:
        print(problem, file=sys.stderr)
    if found:
        return 1
    print(newest(changelog)[2])
    return 0


if __name__ == "__main__":
    sys.exit(main())
