"""Standard outputs of each kind that a program may be given, with their readers."""

import os
import pty
import socket
import tempfile
import threading
import time
from typing import Any


def open_file(path):
    return None, os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)


def open_file_to_append(path):
    return None, os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def open_socketpair(_):
    ours, theirs = socket.socketpair()
    return ours.detach(), theirs.detach()


def open_journal(_):
    """Open a stream as systemd does: connected to the journal's socket, for writing only."""
    # The socket is not in the test's folder, whose path can be too long for a socket.
    with (
        tempfile.TemporaryDirectory() as folder,
        socket.socket(socket.AF_UNIX) as listener,
        socket.socket(socket.AF_UNIX) as stream,
    ):
        listener.bind(f"{folder}/journal")
        listener.listen()
        stream.connect(f"{folder}/journal")
        stream.shutdown(socket.SHUT_RD)
        ours, _ = listener.accept()
        return ours.detach(), stream.detach()


# {kind: a function that returns the reader's end, or None for a file, and the program's end}
KINDS = {
    "> file": open_file,
    ">> file": open_file_to_append,
    "pipe": lambda _: os.pipe(),
    "terminal": lambda _: pty.openpty(),
    "journal": open_journal,
    "socketpair": open_socketpair,
}


class StandardOutput:
    """A standard output. `fd` is for the program, `text()` is what has arrived.

    This is a context manager, which closes both ends. What is not a file is read from `read()` on.
    """

    def __init__(self, kind, folder):
        self.kind = kind
        self.path = folder / "output"
        self._pieces = []
        self._reader: Any = None
        self._thread: threading.Thread | None = None
        self.fd: int | None = None

    def __enter__(self):
        self._reader, self.fd = KINDS[self.kind](self.path)
        return self

    def __exit__(self, *_):
        self.close()
        # A reader ends when the last program that can write to it has ended.
        if self._thread:
            self._thread.join(10)
        if self._reader is not None:
            os.close(self._reader)

    def close(self):
        """Close our copy of the program's end."""
        if self.fd is not None:
            os.close(self.fd)
            self.fd = None

    def close_reader(self):
        """Close the reader's end, so that nobody can read any more."""
        os.close(self._reader)
        self._reader = None

    def read(self, bytes_a_second=None):
        """Read from now on, in a thread."""
        if self._reader is not None and not self._thread:
            self._thread = threading.Thread(target=self._read, args=[bytes_a_second], daemon=True)
            self._thread.start()

    def text(self):
        """Return what has arrived, without the carriage returns that a terminal adds."""
        data = self.path.read_bytes() if self._reader is None else b"".join(self._pieces)
        return data.decode(errors="replace").replace("\r\n", "\n")

    def _read(self, bytes_a_second):
        while True:
            try:
                piece = os.read(self._reader, 2**14)
            except OSError:
                return  # The program of this terminal has ended.
            if not piece:
                return
            self._pieces.append(piece)
            if bytes_a_second:
                time.sleep(len(piece) / bytes_a_second)
