"""Processes that a test started and did not end."""

import os
import time
from contextlib import contextmanager

import psutil

ENDING = 5  # seconds


@contextmanager
def nothing_left_in(folder):
    """Assert that no process stays: no child, and no orphan that works in the folder."""
    before = descendants() | at_work_in(folder)
    yield
    # A process that is just ending is still listed, and is no leftover.
    end = time.monotonic() + ENDING
    while left := added(before, descendants() | at_work_in(folder)):
        assert time.monotonic() < end, f"processes left over: {left}"
        time.sleep(0.1)


def added(before, after):
    """Return what is in the second {pid: command} and not in the first."""
    return {pid: text for pid, text in after.items() if pid not in before}


def at_work_in(folder):
    """Return {pid: command} of every process whose working directory or program is in `folder`."""
    inside = os.path.realpath(folder) + os.sep
    found = {}
    for process in psutil.process_iter():
        try:
            places = (process.cwd(), process.exe())
            if any((place + os.sep).startswith(inside) for place in places):
                found[process.pid] = " ".join(process.cmdline())
        except psutil.Error:
            continue
    return found


def descendants(pid=None):
    """Return {pid: command} of all descendants of `pid`, by default of this process."""
    found = {}
    for process in psutil.Process(pid).children(recursive=True):
        try:
            found[process.pid] = " ".join(process.cmdline())
        except psutil.Error:
            continue
    return found
