"""Processes that a test started and did not end."""

import os

import psutil


def at_work_in(folder):
    """{pid: command} of every process whose working directory or program is in `folder`."""
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
    """{pid: command} of the children of `pid` (by default this process), theirs, and so on."""
    found = {}
    for process in psutil.Process(pid).children(recursive=True):
        try:
            found[process.pid] = " ".join(process.cmdline())
        except psutil.Error:
            continue
    return found
