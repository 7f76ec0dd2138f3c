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
    """Something did not work that should have. The text says what, with the last lines of logs."""


PARTS, PORTS_OF_A_PART = 16, 1_400

_given: set[int] = set()


def ports_of(worker):
    """Return the ports that one process of pytest-xdist may give out; `worker` is its name, as gw3.

    Processes do not know of each other's ports, so each has its own. They lie below the range of
    outgoing connections, one of which could take a port.
    """
    number = int(worker.removeprefix("gw") or "0")
    first = 10_000 + number % PARTS * PORTS_OF_A_PART
    return range(first, first + PORTS_OF_A_PART)


def free_port():
    """Return a TCP port that nobody listens on, and never the same one twice."""
    while True:
        port = random.choice(ports_of(os.environ.get("PYTEST_XDIST_WORKER", "")))
        with contextlib.suppress(OSError), socket.socket() as sock:
            sock.bind(("127.0.0.1", port))
            if port not in _given:
                _given.add(port)
                return port


def wait_until(condition, seconds, what, every=0.1):
    """Call `condition` until it is true, and return its value. Raises Failed after `seconds`."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            raise Failed(f"{what}: not within {seconds} seconds")
        time.sleep(every)
    return value


def run(command, *, cwd, env, seconds):
    """Run a list of arguments to its end; return a CompletedProcess with text output.

    Raises Failed after `seconds`. Whatever interrupts the command ends its children, too.
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
        # Appending, because plain supervisord opens the same file again for each of its programs.
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
        """Return everything that the program has written so far."""
        return self.log.read_text(errors="replace")

    def last_lines(self, count=15):
        """Return the end of the output, for people."""
        return "\n".join(self.output().splitlines()[-count:])

    def exit_code(self):
        """Return the exit code (negative: the signal that ended it), or None while it runs."""
        return self._popen.poll()

    def wait(self, seconds):
        """Wait until the program ends, and return its exit code. Raises Failed after `seconds`."""
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
        """Return a Failed with `text` and the last lines of the output."""
        return Failed(f"{self.name} {text}. Its last lines ({self.log}):\n{self.last_lines()}")

    def family(self):
        """Return {pid: command} of every living process of the session, itself included."""
        return {pid: row.command for pid, row in processes().items() if _session(pid) == self.pid}

    def terminate(self):
        """Send one SIGTERM to this process alone, as a platform does, and do not wait."""
        # A second SIGTERM could kill a Python that has already removed its handlers.
        if self.exit_code() is None and not self._told_to_end:
            self._told_to_end = True
            self._popen.terminate()

    def stop(self, seconds=28):
        """Terminate the program and return its exit code.

        Raises Failed if that takes longer than `seconds` or leaves a process, which is killed.
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
        """Send SIGKILL to whatever is left of the session, each process by its id."""
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
    """Return {pid: Row(parent, command)} of all living processes (by `ps`; Linux and macOS)."""
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
