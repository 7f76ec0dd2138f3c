"""The files that the programs are made of, and what counts as a change of them."""

import logging
from collections.abc import Iterator
from pathlib import Path

from watchfiles import Change, DefaultFilter, watch

from .programs import Ending

# It would tell of each change, in a line that does not begin with the name of a program.
logging.getLogger("watchfiles").setLevel(logging.WARNING)

TICK = 200  # milliseconds between two looks at the programs, while no file changes


class SourceFilter(DefaultFilter):
    """Python files, and all files of folders named `templates`.

    DefaultFilter leaves out what editors write beside a file, and folders such as __pycache__. What
    the service writes by itself does not count either: databases, logs, uploads.
    """

    def __init__(self, project: Path):
        super().__init__()
        self.project = project

    def __call__(self, change: Change, path: str) -> bool:
        inside = Path(path)
        # The project may itself stand below a folder with such a name.
        if inside.is_relative_to(self.project):
            inside = inside.relative_to(self.project)
        if any(part.startswith(".") for part in inside.parts):
            return False
        is_source = inside.suffix == ".py" or "templates" in inside.parent.parts
        return is_source and super().__call__(change, str(inside))


def source_folders(project: Path) -> list[Path]:
    """The project's folders, but not .venv and the like: to watch its thousands takes seconds."""
    return sorted(
        folder
        for folder in project.iterdir()
        if folder.is_dir() and not folder.name.startswith((".", "_", "node_modules"))
    )


def changes(project: Path, ending: Ending) -> Iterator[bool]:
    """Yield True when files were changed, made or deleted, and False every TICK without a change.

    It ends when `ending` is set.
    """
    while not ending.is_set():
        folders = source_folders(project)
        watching = watch(
            *folders,
            watch_filter=SourceFilter(project),
            stop_event=ending,
            rust_timeout=TICK,
            yield_on_timeout=True,
            # As of a database server's folder in the project.
            ignore_permission_denied=True,
        )
        try:
            for found in watching:
                if source_folders(project) != folders:
                    # A folder has come or gone: watch those that are there now.
                    yield True
                    break
                yield bool(found)
        except FileNotFoundError:
            # A folder has gone before it could be watched.
            yield True
