"""Standard output and standard error, written to without ever waiting for whoever reads them.

They may be a terminal, a file, a pipe or a socket, as systemd's journal is. The open file is used
as it is. Opening `/dev/stdout` once more fails for a socket and for another user's terminal.
Switching it to non-blocking would switch it for every other process that shares it.
"""

import fcntl
import os
import select
import stat
import time

# Bytes. While more than this waits for a slow reader, the programs should not be listened to: their
# pipes fill up, and then they wait as well.
MOST_WAITING = 2**20
# Seconds. A reader that takes nothing for so long has stopped. Programs must not wait for it for
# ever, so what waits is lost.
PATIENCE = 5

# Bytes that can be written without a wait, as soon as `select` says that something can. For a pipe
# the system promises it; a socket takes more. A terminal may wait, but only while nobody reads its
# other end, as under a terminal emulator that hangs: one that is stopped by Ctrl-S takes nothing.
PIECE = select.PIPE_BUF

LOST = b"supervise: some lines are missing here, because they could not be written.\n"


class Output:
    """One of the two. What cannot be written, as on a full disk, is lost, and no error is raised.

    It has the methods of a binary stream that supervisor's loggers call: write, flush, fileno.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.waiting = bytearray()
        self.last_taken = time.monotonic()
        self.is_within_line = False
        self.has_lost_lines = False

    def fileno(self) -> int:
        return self.fd

    def write(self, data: bytes) -> None:
        """Write it, or keep what the reader does not take at once for the next `flush`."""
        self.waiting += data
        self.flush()

    def flush(self) -> None:
        """Write as much as the reader takes without a wait."""
        try:
            while self.waiting and self.takes_more():
                if self.has_lost_lines:
                    self.note_the_loss()
                self.write_some()
        except BlockingIOError:
            # Another process has switched the open file to non-blocking. It takes more later.
            return
        except OSError:
            self.lose_what_waits()

    def takes_more(self, seconds: float = 0) -> bool:
        """Whether it takes a piece at once, or within so many seconds.

        Raises OSError if the file is closed.
        """
        _, writable, _ = select.select([], [self.fd], [], seconds)
        return bool(writable)

    def write_some(self) -> None:
        written = os.write(self.fd, self.waiting[:PIECE])
        if not written:
            return
        self.is_within_line = not self.waiting[:written].endswith(b"\n")
        self.last_taken = time.monotonic()
        del self.waiting[:written]

    def note_the_loss(self) -> None:
        """Put a line where the lost ones would be, and end the line that was cut off by them."""
        self.has_lost_lines = False
        self.waiting[:0] = LOST
        if self.is_within_line:
            self.waiting[:0] = b"\n"

    def lose_what_waits(self) -> None:
        self.waiting.clear()
        self.has_lost_lines = True

    def is_full(self) -> bool:
        """Whether its reader is so far behind that the programs should wait.

        The answer is never True for longer than PATIENCE if the reader has stopped.
        """
        if len(self.waiting) < MOST_WAITING:
            return False
        if time.monotonic() - self.last_taken > PATIENCE:
            self.lose_what_waits()
            return False
        return True

    def finish(self, seconds: float) -> None:
        """Give the reader so many seconds to take what still waits. The rest is lost."""
        end = time.monotonic() + seconds
        while self.waiting and time.monotonic() < end:
            try:
                self.takes_more(max(0, end - time.monotonic()))
            except OSError:
                self.lose_what_waits()
            self.flush()
        if self.waiting:
            self.lose_what_waits()


def open_what_is_closed() -> None:
    """Make a standard file that is closed /dev/null: the next file opened would take its place."""
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            # It gets the lowest number that is free, which is this one.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def append_to_file(fd: int) -> None:
    """If it is a file, write each line at its end.

    With `>` lines would otherwise be written over those of others. After a rotation by
    `copytruncate` the file would begin with as many zeros as it had bytes.
    """
    if stat.S_ISREG(os.fstat(fd).st_mode):
        flags = fcntl.fcntl(fd, fcntl.F_GETFL)
        fcntl.fcntl(fd, fcntl.F_SETFL, flags | os.O_APPEND)
