"""Programs in sessions of their own: started, watched, and ended by their id."""

import contextlib
import os
import random
import re
import signal
import socket
import subprocess
import time
from pathlib import Path


class Failed(Exception):
    """Something that should have worked did not; the text says what, with the last log lines."""


_given: set[int] = set()


def free_port():
    """A TCP port that nobody listens on, and never the same twice.

    It lies below those that the system gives to outgoing connections, which could take it.
    """
    while True:
        port = random.randrange(10_000, 32_768)
        with contextlib.suppress(OSError), socket.socket() as sock:
            sock.bind(("127.0.0.1", port))
            if port not in _given:
                _given.add(port)
                return port


def wait_until(condition, seconds, what, every=0.1):
    """Call `condition` until it is true and return its value; `Failed` after `seconds`."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            raise Failed(f"{what}: not within {seconds} seconds")
        time.sleep(every)
    return value


def run(command, *, cwd, env, seconds):
    """Run a list of arguments to its end; return a CompletedProcess with text output.

    Whatever interrupts it (a timeout is `Failed`) ends its children too.
    """
    with subprocess.Popen(
        command,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    ) as popen:
        try:
            output, errors = popen.communicate(timeout=seconds)
        except BaseException as error:
            os.killpg(popen.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                raise Failed(f"{command} did not end within {seconds} seconds") from None
            raise
    return subprocess.CompletedProcess(command, popen.returncode, output, errors)


class Program:
    """A command in a session of its own, so that a Ctrl-C meant for us does not reach it.

    Its standard output and error go to the file `log`.
    """

    def __init__(self, name, command, *, cwd, env, log):
        self.name = name
        self.log = Path(log)
        self.log.parent.mkdir(parents=True, exist_ok=True)
        self.log.unlink(missing_ok=True)
        # Appending, for supervisord opens the same file once more for each of its programs.
        with self.log.open("ab") as output:
            self._popen = subprocess.Popen(
                command,
                cwd=cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.pid = self._popen.pid
        self._told_to_end = False

    def output(self):
        """Everything it has written so far."""
        return self.log.read_text(errors="replace")

    def last_lines(self, count=15):
        """The end of its output, for people."""
        return "\n".join(self.output().splitlines()[-count:])

    def exit_code(self):
        """Its exit code (negative: the signal that ended it), or None while it runs."""
        return self._popen.poll()

    def wait(self, seconds):
        """Wait for it to end by itself and return its exit code; `Failed` after `seconds`."""
        try:
            return self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            raise self.failed(f"did not end within {seconds} seconds") from None

    def wait_for(self, pattern, seconds):
        """Wait until its output matches `pattern` (a regular expression); return the match."""
        expression = re.compile(pattern, re.MULTILINE)
        end = time.monotonic() + seconds
        while True:
            code = self.exit_code()
            if found := expression.search(self.output()):
                return found
            if code is not None:
                raise self.failed(f"ended with {code}, before {pattern!r} was in its output")
            if time.monotonic() > end:
                raise self.failed(f"{pattern!r} was not in its output within {seconds} seconds")
            time.sleep(0.1)

    def failed(self, text):
        """A `Failed` with `text` and the last lines of the output."""
        return Failed(f"{self.name} {text}. Its last lines ({self.log}):\n{self.last_lines()}")

    def family(self):
        """{pid: command} of every living process of its session, itself included."""
        return {pid: row.command for pid, row in processes().items() if _session(pid) == self.pid}

    def terminate(self):
        """SIGTERM to its pid and nothing else, as a platform does, once; does not wait."""
        # A second one could meet a Python that has taken its handlers away, and kill it.
        if self.exit_code() is None and not self._told_to_end:
            self._told_to_end = True
            self._popen.terminate()

    def stop(self, seconds=28):
        """`terminate()`, and return its exit code.

        `Failed` when it takes longer than `seconds` or leaves a process behind; that is killed.
        """
        self.terminate()
        try:
            code = self._popen.wait(seconds)
            problem = ""
        except subprocess.TimeoutExpired:
            code = None
            problem = f"did not end within {seconds} seconds of SIGTERM"
        try:
            wait_until(lambda: set(self.family()) <= {self.pid}, 2, "end of its processes")
        except Failed:
            left = {pid: text for pid, text in self.family().items() if pid != self.pid}
            problem = problem or f"left processes behind: {left}"
        self.kill()
        if problem:
            raise self.failed(problem)
        return code

    def kill(self):
        """SIGKILL whatever is left of its session, each by its id."""
        for pid in self.family():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self._popen.wait()


class Row:
    """One line of the process table."""

    def __init__(self, parent, command):
        self.parent = parent
        self.command = command


def processes():
    """{pid: Row(parent, command)} of all living processes, as `ps` sees them (Linux and macOS)."""
    listing = subprocess.run(
        ["ps", "-A", "-ww", "-o", "pid=,ppid=,stat=,command="],
        check=True,
        capture_output=True,
        text=True,
        errors="replace",
    ).stdout
    rows = {}
    for line in listing.splitlines():
        pid, parent, state, *command = line.split(None, 3)
        if not state.startswith("Z"):
            rows[int(pid)] = Row(int(parent), command[0] if command else "")
    return rows


def _session(pid):
    try:
        return os.getsid(pid)
    except (ProcessLookupError, PermissionError):
        return None
