"""The results file: one JSON object a line, one line a run."""

import hashlib
import json
import threading

from .services import BENCHMARKS

TEMPLATE = BENCHMARKS.parent
CODE = (
    "{{cookiecutter.project_slug}}",
    "cookiecutter.json",
    "hooks",
    "templates",
    "benchmarks/plain",
)


def version_of_the_code():
    """Return a short hash of the template's files and the baseline's."""
    digest = hashlib.sha256()
    for name in CODE:
        top = TEMPLATE / name
        files = sorted(top.rglob("*")) if top.is_dir() else [top]
        for path in files:
            if path.is_file() and "__pycache__" not in path.parts:
                digest.update(path.relative_to(TEMPLATE).as_posix().encode())
                digest.update(path.read_bytes())
    return digest.hexdigest()[:10]


class Results:
    """The runs in a results file, old and new."""

    def __init__(self, path):
        self.path = path
        self.rows = []
        self._lock = threading.Lock()
        if path.exists():
            for number, line in enumerate(path.read_text().splitlines(), 1):
                try:
                    self.rows.append(json.loads(line))
                except ValueError:
                    raise SystemExit(f"{path}, line {number}, is no JSON") from None

    def has(self, fault, service, run, label):
        """Say whether that run is there."""
        wanted = (fault, service, run, label)
        return any(
            (row["fault"], row["service"], row["run"], row["label"]) == wanted for row in self.rows
        )

    def add(self, row):
        """Append one run."""
        with self._lock:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a") as file:
                file.write(json.dumps(row) + "\n")
            self.rows.append(row)

    def of(self, label=None):
        """Return (label, its rows), by default of the last row's label."""
        label = label or (self.rows[-1]["label"] if self.rows else None)
        return label, [row for row in self.rows if row["label"] == label]
