"""Write examples/: services as this template generates them, to browse.

Run it after every change of what is rendered. `--check` writes nothing and exits 1 when a file is
missing, surplus or not as it is rendered today. What Git ignores there is left alone: an example
can be started where it stands.
"""

import argparse
import fnmatch
import stat
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from harness import in_place
from harness.answers import ROOT
from harness.service import bake

TOP = ROOT / "examples"
COMMAND = "python3 -m script.examples"

# {folder: (what it shows, the answers that are not the defaults)}
EXAMPLES: dict[str, tuple[str, dict[str, str]]] = {
    "render": ("Render, in one container beside a private Redis", {}),
    "own_server": (
        "your own server, and a Redis with a CA of its own that asks for client certificates",
        {"redis_provider": "self_hosted", "deploy_target": "server"},
    ),
}

PAGE = """\
# Examples

Each folder is a service, file for file as this template generates it.

{table}
Few files depend on the answers. `git diff --no-index examples/render examples/own_server` shows
them.

## The certificates of own_server

No rendered file holds a certificate. Three lines of the environment, or of `.env`, say where the
files are:

    REDIS_CA_CERTS=/etc/my_service/ca.pem
    REDIS_CLIENT_CERT=/etc/my_service/client.pem
    REDIS_CLIENT_KEY=/etc/my_service/client.key

[own_server/docs/redis.md](own_server/docs/redis.md#a-ca-of-your-own) says how to make them.

## Do not edit

`{command}` writes this folder, and this page. `tests/bake/test_examples.py` is red while a file
here is not what the template renders. So change the template, and run that command.

The workflows and Dependabot files in the examples are not active. GitHub reads only those at the
top of a repository.
"""


class File(NamedTuple):
    """What Git keeps of a file."""

    content: bytes
    executable: bool


def page() -> str:
    """Return examples/README.md."""
    lines = ["| Folder | For | Answers that are not the defaults |", "|---|---|---|"]
    for folder, (shows, answers) in EXAMPLES.items():
        given = ", ".join(f"`{name}={value}`" for name, value in answers.items()) or "none"
        lines.append(f"| [{folder}]({folder}/) | {shows} | {given} |")
    return PAGE.format(table="\n".join(lines) + "\n", command=COMMAND)


def below(top: Path) -> list[Path]:
    """Return all files and folders below that Git does not ignore."""
    patterns = in_place.ignored_patterns()
    return [
        path
        for path in sorted(top.rglob("*"))
        if not any(
            fnmatch.fnmatch(part, pattern)
            for part in path.relative_to(top).parts
            for pattern in patterns
        )
    ]


def read(top: Path) -> dict[str, File]:
    """Return {path: File} of all files below that Git does not ignore."""
    found = {}
    for path in below(top):
        if path.is_file():
            executable = bool(path.stat().st_mode & stat.S_IXUSR)
            found[path.relative_to(top).as_posix()] = File(path.read_bytes(), executable)
    return found


def made() -> dict[str, File]:
    """Bake the examples anew; return what examples/ should hold."""
    found = {"README.md": File(page().encode(), False)}
    with tempfile.TemporaryDirectory() as scratch:
        for folder, (_, answers) in EXAMPLES.items():
            project = bake(Path(scratch, folder), **answers)
            found |= {f"{folder}/{name}": file for name, file in read(project).items()}
    return found


def differences(right: dict[str, File], there: dict[str, File]) -> list[str]:
    """Return what is wrong with the files that are there, a line each."""
    found = []
    for name in sorted(right.keys() | there.keys()):
        if name not in there:
            found.append(f"{name} is missing")
        elif name not in right:
            found.append(f"{name} is surplus")
        elif right[name].content != there[name].content:
            found.append(f"{name} is not as it is rendered")
        elif right[name].executable != there[name].executable:
            found.append(f"{name} {'is not' if right[name].executable else 'is'} executable")
    return found


def write(right: dict[str, File], top: Path) -> None:
    """Make the folder hold these files, and no others but those that Git ignores."""
    for name in read(top).keys() - right.keys():
        (top / name).unlink()
    for folder in reversed(below(top)):
        if folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir()):
            folder.rmdir()
    for name, file in right.items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.content)
        path.chmod(0o755 if file.executable else 0o644)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when stale")
    options = parser.parse_args(arguments)
    right = made()
    stale = differences(right, read(TOP))
    if not stale:
        print(f"{TOP.name}/ is current")
    elif options.check:
        print(*stale, f"{TOP.name}/ is stale: run {COMMAND}", sep="\n", file=sys.stderr)
        return 1
    else:
        write(right, TOP)
        print(f"{TOP.name}/ written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
