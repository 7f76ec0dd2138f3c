"""What a run has proven, in numbers: counted where it happens, and printed at the end of the run.

Tests run in several processes. Each counts for itself, and the first one adds up what all report.
"""

import json
import os
import threading
from collections import Counter
from pathlib import Path
from typing import Any

PROVEN = "proven by this run"
# The variable that names a file, for the sum over several runs.
FILE = "PROVEN_FILE"

# {section: {line: {what: how often}}} and {section: {line: seconds}}.
Sums = dict[str, dict[str, dict[str, int]]]
Seconds = dict[str, dict[str, float]]

_sums: Sums = {}
_slowest: Seconds = {}
_lock = threading.Lock()


def tally(section: str, line: str = "", **numbers: int) -> None:
    """Add the numbers to that line of a section. An underscore in a name is printed as a space."""
    with _lock:
        counter = _sums.setdefault(section, {}).setdefault(line, Counter())
        for name, number in numbers.items():
            counter[name.replace("_", " ")] += number


def slowest(section: str, line: str, seconds: float) -> None:
    """Note that something took so long. Of all that is noted for a line, the longest is printed."""
    with _lock:
        lines = _slowest.setdefault(section, {})
        lines[line] = max(seconds, lines.get(line, 0))


def proven(**numbers: int) -> None:
    """Add to what the last section says: services started, bad servers met ..."""
    tally(PROVEN, "", **numbers)


def report(sums: Sums, seconds: Seconds) -> dict[str, list[str]]:
    """{section: its lines}. What the run has proven comes last, the slowest of a section first."""
    sections = dict.fromkeys(sorted([*sums, *seconds], key=PROVEN.__eq__))
    return {
        section: _lines(sums.get(section, {}), seconds.get(section, {})) for section in sections
    }


def _lines(sums: dict[str, dict[str, int]], seconds: dict[str, float]) -> list[str]:
    lines = []
    for line, numbers in sums.items():
        text = ", ".join(f"{number:,} {name}" for name, number in numbers.items())
        lines.append(f"{line}: {text}" if line else text)
    ordered = sorted(seconds.items(), key=lambda item: -item[1])
    return lines + [f"{longest:5.1f} s {line}" for line, longest in ordered]


def to_file() -> None:
    """Append what this run has proven to the file that FILE names."""
    numbers = _sums.get(PROVEN, {}).get("")
    if numbers and (path := os.environ.get(FILE)):
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(numbers) + "\n")


def from_file(path: Path) -> list[str]:
    """The sum of the runs that wrote to the file, one line for each number."""
    total: Counter[str] = Counter()
    if path.exists():
        for line in path.read_text("utf-8").splitlines():
            total.update(json.loads(line))
    return [f"{number:,} {name}" for name, number in total.items()]


def register(config: Any) -> None:
    """Let pytest gather the numbers of all processes, and print them."""
    gathered = Gathered() if config.pluginmanager.hasplugin("xdist") else None
    for plugin in filter(None, (Printed(gathered), gathered)):
        config.pluginmanager.register(plugin)


class Gathered:
    """The numbers of the processes of pytest-xdist."""

    silent = 0  # processes that ended without a report

    def pytest_sessionfinish(self, session: Any) -> None:
        if hasattr(session.config, "workeroutput"):
            plain = {
                section: {line: dict(numbers) for line, numbers in lines.items()}
                for section, lines in _sums.items()
            }
            session.config.workeroutput["tallies"] = (plain, _slowest)

    def pytest_testnodedown(self, node: Any) -> None:
        if "tallies" not in getattr(node, "workeroutput", {}):
            self.silent += 1
            return
        sums, seconds = node.workeroutput["tallies"]
        for section, lines in sums.items():
            for line, numbers in lines.items():
                tally(section, line, **numbers)
        for section, times in seconds.items():
            for line, longest in times.items():
                slowest(section, line, longest)


class Printed:
    """The sections at the end of the run."""

    def __init__(self, gathered: Gathered | None) -> None:
        self.gathered = gathered

    def pytest_terminal_summary(self, terminalreporter: Any, config: Any) -> None:
        # A process of pytest-xdist hands its numbers on, instead.
        if not hasattr(config, "workeroutput"):
            to_file()
        for section, lines in report(_sums, _slowest).items():
            terminalreporter.write_sep("=", section)
            for line in lines:
                terminalreporter.write_line(line)
        if self.gathered and self.gathered.silent:
            count = self.gathered.silent
            terminalreporter.write_line(f"Missing: the numbers of {count} processes that crashed.")
