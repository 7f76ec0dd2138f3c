"""Faults, done to this service and to Celery with its defaults: what is lost, what recovers.

    python benchmarks/faults.py [--only NAME ...] [--runs N] [--parallel N] [--results FILE]
    python benchmarks/faults.py --list
    python benchmarks/faults.py --table

Both services run on real servers and take turns on the same machine. The other one is the small
project benchmarks/plain, set up as Django's and Celery's documentation says. Each run is one line
of the results file, written when it ends; a grid that is started again goes on where it stopped.
A NAME may have * and ? in it, or be a group: stalls, refusals, sweep, deploy, others.
"""

import argparse
import datetime
import fnmatch
import os
import queue
import shutil
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.faults import ending, table  # noqa: E402
from benchmarks.faults.cases import FAULTS  # noqa: E402
from benchmarks.faults.results import Results, version_of_the_code  # noqa: E402
from benchmarks.faults.run import Run  # noqa: E402
from benchmarks.faults.services import NAMES, OURS, Ours, Plain, versions  # noqa: E402
from benchmarks.faults.stack import Stack  # noqa: E402
from harness.certificates import Authority  # noqa: E402
from harness.deployments import Venv  # noqa: E402
from harness.processes import Failed  # noqa: E402

RESULTS = Path(__file__).resolve().parent / "results" / "faults.jsonl"
ATTEMPTS = 2  # at a run that could not be made


class Lane:
    """A thread that makes runs one after the other, on stacks that it uses again when it can."""

    def __init__(self, grid):
        self._grid = grid
        self._stacks = {}

    def work(self):
        """Make runs until there are none left."""
        try:
            while True:
                try:
                    turn = self._grid.jobs.get_nowait()
                except queue.Empty:
                    return
                for fault, service, number in turn:
                    self._make(fault, service, number)
        except ending.Stopped:
            return
        finally:
            if not ending.stopping():
                self._close(list(self._stacks))

    def _make(self, fault, service, number):
        for attempt in range(1, ATTEMPTS + 1):
            try:
                row = self._run(fault, service, number)
            except ending.Stopped:
                raise
            except Exception as error:
                if ending.stopping():
                    raise ending.Stopped from None
                self._close([service])
                self._grid.failed(fault, service, number, attempt, error)
            else:
                self._grid.add(row)
                return

    def _run(self, fault, service, number):
        began = time.time()
        stack, used = self._stack(fault, service)
        run = Run(stack)
        try:
            fault.act(run)
            row = {
                "fault": fault.name,
                "service": service,
                "run": number,
                "label": self._grid.label,
                "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
                **run.result(),
                "new_stack": not used,
                "seconds": round(time.time() - began, 1),
                "load": round(os.getloadavg()[0], 1),
                "versions": self._grid.versions,
            }
        finally:
            run.close()
            self._grid.keep_logs(stack, fault, number)
        if fault.spoils or not healthy(row, stack):
            self._close([service])
        return row

    def _stack(self, fault, service):
        """A stack for the fault, and whether it was used before."""
        others = [name for name, stack in self._stacks.items() if stack.shape != fault.shape]
        self._close(others)
        if fault.boot or (fault.spoils and service in self._stacks):
            self._close([service])
        if service in self._stacks:
            return self._stacks[service], True
        stack = Stack(self._grid.kinds[service], fault.shape, self._grid.authority)
        self._stacks[service] = stack
        if not fault.boot:
            stack.start_and_wait()
            self._warm_up(stack)
        return stack, False

    @staticmethod
    def _warm_up(stack):
        """One task and one mail, so that everything is imported and connected."""
        run = Run(stack)
        try:
            run.end()
            run.after(tasks=1, mails=1, patience=20)
            run.watch(tasks=30, mails=30, settle=0)
            if run.recovery() is None or not stack.mail.taken:
                raise Failed(f"a new stack does no work:\n{stack.program.last_lines(12)}")
        finally:
            run.close()

    def _close(self, names):
        for name in names:
            if name in self._stacks:
                self._stacks.pop(name).close()


def healthy(row, stack):
    """Say whether the next run may use the same stack."""
    return (
        row["container_up"]
        and row["recovery"] is not None
        and row["strength"] == stack.shape.processes
        and not table.missing(row, "tasks")
        and not table.missing(row, "mails")
        and not row["messages_left"]
        and not row["lost_acknowledgements"]
    )


class Grid:
    """All runs that are to be made, and what they share."""

    def __init__(self, options, faults, folder):
        self.results = Results(options.results)
        self.label = options.label or version_of_the_code()
        self.jobs = queue.SimpleQueue()
        self.count = 0
        self._done = self._failures = 0
        self._lock = threading.Lock()
        self._logs = options.logs
        self._plan(options, faults)
        if not self.count:
            return
        (folder / "certificates").mkdir()
        self.authority = Authority(folder / "certificates", "Own test CA")
        venv = Venv(folder / "venv")
        self.kinds = {}
        for kind in (Ours, Plain):
            self.kinds[kind.name] = kind(folder / kind.__name__.lower(), self.authority, venv)
        self.versions = versions(venv)

    def run(self, lanes):
        """Make all runs; return the exit code."""
        threads = [threading.Thread(target=Lane(self).work, daemon=True) for _ in range(lanes)]
        for number, thread in enumerate(threads):
            thread.start()
            if number < lanes - 1:
                ending.pause(2)  # Otherwise all lanes would start their first stacks at once.
        for thread in threads:
            thread.join()
        return 1 if self._failures else 0

    def add(self, row):
        """Keep a run and print it."""
        self.results.add(row)
        with self._lock:
            self._done += 1
            print(f"{self._done:4}/{self.count} {table.line(row)}", flush=True)

    def failed(self, fault, service, number, attempt, error):
        """Say that a run could not be made. The next start of the grid makes it again."""
        with self._lock:
            print(f"     NOT MADE {fault.name} {service} {number}, attempt {attempt}:", flush=True)
            print("".join(traceback.format_exception(error)), flush=True)
            self._failures += attempt == ATTEMPTS

    def keep_logs(self, stack, fault, number):
        """Copy the service's log, where that was asked for."""
        if self._logs:
            self._logs.mkdir(parents=True, exist_ok=True)
            name = f"{fault.name}-{stack.kind.name.replace(' ', '-')}-{number}"
            (self._logs / f"{name}.log").write_text(stack.output())
            shutil.copy(stack.numbered, self._logs / f"{name}-numbered.txt")

    def _plan(self, options, faults):
        """First runs first; those of one shape side by side, so that stacks can be used again."""
        turns = [
            (number, fault)
            for fault in faults
            for number in range(1, (options.runs or fault.runs) + 1)
        ]
        shapes = list(dict.fromkeys(fault.shape for fault in faults))
        turns.sort(key=lambda turn: (turn[0], shapes.index(turn[1].shape)))
        for number, fault in turns:
            # They take turns in who comes first.
            order = NAMES if number % 2 else NAMES[::-1]
            missing = [
                (fault, service, number)
                for service in order
                if service in fault.services
                and service in options.service
                and not self.results.has(fault.name, service, number, self.label)
            ]
            if missing:
                self.jobs.put(missing)
                self.count += len(missing)


def chosen(patterns):
    """The faults that match one of the patterns, all without any."""
    if not patterns:
        return list(FAULTS.values())
    found = {}
    for pattern in patterns:
        matches = [
            fault
            for fault in FAULTS.values()
            if fnmatch.fnmatch(fault.name, pattern) or fault.group == pattern
        ]
        if not matches:
            sys.exit(f"No fault is named {pattern}: see --list.")
        found |= {fault.name: fault for fault in matches}
    return list(found.values())


def parse():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="only these faults")
    parser.add_argument("--runs", type=int, help="of each (default: see --list)")
    parser.add_argument("--parallel", type=int, default=1, metavar="N", help="stacks side by side")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the results file")
    parser.add_argument("--label", help="the version of the code (default: a hash of its files)")
    parser.add_argument("--service", choices=NAMES, nargs="+", default=NAMES, help="only this one")
    parser.add_argument("--logs", type=Path, help="folder for the logs of every run")
    parser.add_argument("--list", action="store_true", help="list the faults")
    parser.add_argument("--table", action="store_true", help="write the table of the results")
    options = parser.parse_args()
    if (options.runs or 1) < 1 or options.parallel < 1:
        parser.error("--runs and --parallel must be at least 1.")
    return options


def main():
    options = parse()
    faults = chosen(options.only)
    if options.list:
        for fault in faults:
            only = "" if len(fault.services) > 1 else f" ({OURS} only)"
            print(f"{fault.name:<26}{fault.group:<10}{fault.runs} runs  {fault.about}{only}")
        return 0
    if options.table:
        return table.write(Results(options.results), options.label)
    folder = Path(tempfile.mkdtemp(prefix="faults-"))

    def stop():
        print("ending…", flush=True)
        ending.end_everything()
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(130)

    ending.on_signals(stop)
    try:
        grid = Grid(options, faults, folder)
        print(f"{grid.count} runs to make, label {grid.label}", flush=True)
        return grid.run(min(options.parallel, grid.count)) if grid.count else 0
    finally:
        ending.end_everything()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
