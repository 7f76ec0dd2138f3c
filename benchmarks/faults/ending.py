"""Waiting that a Ctrl-C or SIGTERM ends at once, and the end of everything that was started."""

import contextlib
import os
import signal
import threading
import time

import psutil

from harness.processes import Failed

_stopping = threading.Event()
_to_close = {}


class Stopped(Exception):
    """The whole grid is being ended."""


def pause(seconds):
    """Sleep, but raise Stopped when everything is to end."""
    if _stopping.wait(max(0, seconds)):
        raise Stopped


def stopping():
    """Say whether everything is to end."""
    return _stopping.is_set()


def wait_until(condition, seconds, what, every=0.1):
    """Call `condition` until it is true and return its value; `Failed` after `seconds`."""
    end = time.time() + seconds
    while not (value := condition()):
        if time.time() > end:
            raise Failed(f"{what}: not within {seconds} seconds")
        pause(every)
    return value


def close_at_the_end(thing):
    """Remember to call `thing.close()` when everything ends before its time."""
    _to_close[id(thing)] = thing


def closed(thing):
    """Forget the thing, because it has been closed."""
    _to_close.pop(id(thing), None)


def end_everything():
    """Kill all processes that were started here, and remove what they no longer need."""
    _stopping.set()
    for _ in range(3):  # Another process may just have been started.
        ours = psutil.Process().children(recursive=True)
        sessions = {_session(process.pid) for process in ours} - {os.getsid(0), None}
        orphans = [p for p in psutil.process_iter() if _session(p.pid) in sessions]
        for process in [*ours, *orphans]:
            with contextlib.suppress(psutil.Error):
                process.kill()
        time.sleep(0.3)
    for thing in list(_to_close.values()):
        with contextlib.suppress(Exception):
            thing.close()


def on_signals(function):
    """Call the function, once, at the first SIGINT or SIGTERM."""

    def handle(number, frame):
        for each in (signal.SIGINT, signal.SIGTERM):
            signal.signal(each, signal.SIG_IGN)
        function()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handle)


def _session(pid):
    try:
        return os.getsid(pid)
    except OSError:
        return None
