"""Processes that a test started and did not end."""

import os
from contextlib import contextmanager

import psutil


@contextmanager
def nothing_left_in(folder):
    """Assert that no process stays: no child, and no orphan that works in the folder."""
    before = descendants() | at_work_in(folder)
    yield
    after = descendants() | at_work_in(folder)
    left = {pid: text for pid, text in after.items() if pid not in before}
    assert not left, f"processes left over: {left}"


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
