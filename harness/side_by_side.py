"""Tests that mostly wait, run side by side in threads, with the outcome of each kept."""

import threading
import time


class SideBySide:
    """`bodies` ({name: function}) run in threads, `at_once` at a time, in their order."""

    def __init__(self, bodies, at_once):
        self._places = threading.Semaphore(at_once)
        self._ended = False
        self._runs = {name: _Run() for name in bodies}
        self._starter = threading.Thread(target=self._start, args=[bodies], daemon=True)
        self._starter.start()

    def __contains__(self, name):
        return name in self._runs

    def result(self, name):
        """Wait until this body ends, and raise what it raised."""
        run = self._runs[name]
        run.over.wait()
        if run.error is not None:
            raise run.error

    def seconds(self):
        """Return {name: seconds it took} of all that have ended."""
        return {name: run.seconds for name, run in self._runs.items() if run.over.is_set()}

    def end(self, interrupt):
        """Start no more, call `interrupt()`, and wait for those that run."""
        self._ended = True
        running = [run for run in self._runs.values() if run.thread and not run.over.is_set()]
        if running:
            interrupt()
        for run in running:
            run.over.wait(30)

    def _start(self, bodies):
        for name, body in bodies.items():
            self._places.acquire()
            if self._ended:
                return
            run = self._runs[name]
            run.thread = threading.Thread(target=self._run, args=[run, body], daemon=True)
            run.thread.start()

    def _run(self, run, body):
        began = time.monotonic()
        try:
            body()
        # What pytest raises for a skip or a failure does not inherit from Exception.
        except BaseException as error:
            run.error = error
        finally:
            run.seconds = time.monotonic() - began
            run.over.set()
            self._places.release()


class _Run:
    def __init__(self):
        self.thread = None
        self.error = None
        self.seconds = 0
        self.over = threading.Event()
