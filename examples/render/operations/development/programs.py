"""Programs side by side: their output line by line, and an end that leaves nothing behind.

honcho does this for Procfiles, and was tried. A closed terminal ended honcho and left its programs
running. With `| head`, honcho itself was left running. Its programs have no standard input: a
`breakpoint()` in a view fails.
"""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from itertools import cycle
from pathlib import Path

from django.utils.termcolors import colorize

PATIENCE = 10  # seconds between "please end" and "end now"
# Seconds after which an unfinished line is shown: it may be a prompt, such as the debugger's.
UNFINISHED_FOR = 0.1

COLOURS = ("cyan", "yellow", "green", "magenta", "blue")
PROCFILE_LINE = re.compile(r"([A-Za-z0-9_-]+):\s*(\S.*)")
PIECE = re.compile(rb"[^\n]*\n|[^\n]+")  # a line, or the beginning of one


class InvalidProcfile(Exception):
    """A Procfile that cannot be used; the text says why, in a sentence."""


def read_procfile(path: Path) -> dict[str, str]:
    """Return {name: command}, in the order of the file. Raises InvalidProcfile."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except FileNotFoundError:
        raise InvalidProcfile(f"{path.name} is missing: it names the programs to run.") from None
    except UnicodeDecodeError:
        raise InvalidProcfile(f"{path.name} cannot be read: save it as UTF-8 text.") from None
    commands: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        found = PROCFILE_LINE.fullmatch(line.strip())
        if found is None:
            raise InvalidProcfile(f"{path.name}, line {number}: write NAME: COMMAND.")
        name, command = found.groups()
        if name in commands:
            raise InvalidProcfile(f"{path.name}, line {number}: there is a {name} already.")
        commands[name] = command
    return commands


class Ending:
    """Whether all programs shall end.

    It is a threading.Event without the lock: a signal handler must not wait for one.
    """

    def __init__(self) -> None:
        self.wanted = False

    def set(self) -> None:
        self.wanted = True

    def is_set(self) -> bool:
        return self.wanted


class Screen:
    """Standard output, which all programs share: each line begins with the name of its program."""

    def __init__(self, names: Iterable[str], *, coloured: bool, when_closed: Callable[[], None]):
        """`when_closed` is called when nobody reads the output any more."""
        names = list(names)
        width = max(map(len, names))
        self.prefixes: dict[str, bytes] = {}
        for name, colour in zip(names, cycle(COLOURS), strict=False):
            prefix = f"{name.ljust(width)} | "
            if coloured:
                prefix = colorize(prefix, fg=colour)
            self.prefixes[name] = prefix.encode()
        self.when_closed = when_closed
        self.closed = False
        # The program whose last line has no end yet.
        self.unfinished: str | None = None
        self.lock = threading.Lock()

    @staticmethod
    def is_terminal() -> bool:
        return os.isatty(sys.stdout.fileno())

    def say(self, name: str, sentence: str) -> None:
        self.show(name, f"{sentence}\n".encode())

    def show(self, name: str, output: bytes) -> None:
        """Write what a program has written."""
        with self.lock:
            for piece in PIECE.findall(output):
                if self.unfinished != name:
                    if self.unfinished is not None:
                        self.write(b"\n")
                    self.write(self.prefixes[name])
                self.write(piece)
                self.unfinished = None if piece.endswith(b"\n") else name

    def write(self, output: bytes) -> None:
        # Without a buffer: what Python keeps for a closed terminal fails once more at its end.
        file = sys.stdout.fileno()
        while output and not self.closed:
            try:
                output = output[os.write(file, output) :]
            except BlockingIOError:
                # A program that shares the terminal can make it so.
                select.select([], [file], [])
            except OSError:
                # The terminal was closed, or the reader of a pipe has ended.
                self.closed = True
                self.when_closed()


class Program:
    """A command line, run by the shell in a session of its own.

    Ctrl-C in a terminal then reaches `manage.py dev` alone, which ends each program in turn, with
    all processes that the program has started.
    """

    def __init__(
        self, name: str, command: str, *, folder: Path, variables: Mapping[str, str], screen: Screen
    ):
        self.name = name
        self.command = command
        self.folder = folder
        self.variables = variables
        self.screen = screen
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.screen.say("dev", f"Starting {self.name}.")
        output, program_output = open_terminal() if self.screen.is_terminal() else os.pipe()
        try:
            # Standard input is the terminal's, so that a breakpoint() in a view can be used.
            self.process = subprocess.Popen(
                self.command,
                shell=True,
                cwd=self.folder,
                env=self.variables,
                stdout=program_output,
                stderr=program_output,
                start_new_session=True,
            )
        finally:
            os.close(program_output)
        self.reader = threading.Thread(target=self.pass_on, args=[output], daemon=True)
        self.reader.start()

    def pass_on(self, output: int) -> None:
        """Show whole lines, so that those of two programs do not mix, until the program ends."""
        unfinished = b""
        while True:
            wait = UNFINISHED_FOR if unfinished else None
            readable, _, _ = select.select([output], [], [], wait)
            if not readable:
                self.screen.show(self.name, unfinished)
                unfinished = b""
                continue
            piece = read(output)
            if not piece:
                break
            lines, newline, unfinished = (unfinished + piece).rpartition(b"\n")
            self.screen.show(self.name, lines + newline)
        os.close(output)
        self.screen.show(self.name, unfinished)

    def status(self) -> int | None:
        """The exit status of a program that has ended by itself (negative: a signal), or None."""
        if self.process is None:
            return None
        return self.process.poll()

    def ask_to_end(self) -> None:
        self.send(signal.SIGTERM)

    def make_end(self, patience: float = PATIENCE) -> None:
        """Wait for its end, and kill what is left of it after `patience` seconds."""
        if self.process is None:
            return
        deadline = time.monotonic() + patience
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(patience)
        # All that the program has started holds the other end of its output.
        self.reader.join(max(0, deadline - time.monotonic()))
        self.send(signal.SIGKILL)
        self.process.wait()
        self.process = None

    def send(self, number: signal.Signals) -> None:
        """Send a signal to all processes of the program, if there are any."""
        if self.process is not None:
            # PermissionError is macOS's word for processes that have ended.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, number)


def open_terminal() -> tuple[int, int]:
    """A terminal for a program, (our end, its end): it keeps its colours and its line editing."""
    ours, program_end = pty.openpty()
    attributes = termios.tcgetattr(program_end)
    # Our own terminal makes "\r\n" of a line's end.
    attributes[1] &= ~termios.OPOST
    termios.tcsetattr(program_end, termios.TCSANOW, attributes)
    return ours, program_end


def read(output: int) -> bytes:
    """What a program has written; nothing when all that write to it have ended."""
    try:
        return os.read(output, 65_536)
    except OSError:
        # That is how Linux tells the end of a terminal.
        return b""


def stop(programs: Iterable[Program]) -> None:
    """End all of them at the same time; returns when nothing of them is left."""
    programs = list(programs)
    for program in programs:
        program.ask_to_end()
    deadline = time.monotonic() + PATIENCE
    for program in programs:
        program.make_end(max(0, deadline - time.monotonic()))


def restart(programs: Iterable[Program]) -> None:
    """End all of them at the same time, and start each as soon as it has ended."""
    programs = list(programs)
    for program in programs:
        program.ask_to_end()
    for program in programs:
        program.make_end()
        program.start()


def describe(status: int) -> str:
    """An exit status in words. Of a signal, Python tells -N, and a shell 128 + N."""
    number = -status if status < 0 else status - 128
    try:
        return f"was ended by {signal.Signals(number).name}"
    except ValueError:
        return f"has ended with status {status}"
