"""A real terminal: a command in a pty, keys typed into it, and what it showed, as text."""

import difflib
import os
import time
from pathlib import Path

import pexpect
import psutil
import pyte

from harness.processes import wait_until

SECONDS = 60
SCREENS = Path(__file__).resolve().parent.parent / "tests" / "bake" / "screens"
ENTER, CTRL_C, CTRL_D = "\r", "\x03", "\x04"


class Terminal:
    """A command in a terminal of its own, for a `with` statement, which ends both."""

    def __init__(self, command, *, cwd, env, columns=80, rows=24):
        self.screen = pyte.HistoryScreen(columns, rows, history=10_000)
        self.stream = pyte.ByteStream(self.screen)
        self.answered = 0  # The first row below the last answer.
        program, *arguments = map(str, command)
        self.child = pexpect.spawn(
            program,
            arguments,
            cwd=str(cwd),
            env={**env, "TERM": "xterm-256color"},
            dimensions=(rows, columns),
            timeout=SECONDS,
        )
        # pexpect pauses for programs that switch off the echo or end slowly. Here we wait.
        self.child.delaybeforesend = None
        self.child.ptyproc.delayafterclose = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.close(force=True)

    @property
    def display(self):
        """The rows that are visible now."""
        return [row.rstrip() for row in self.screen.display]

    @property
    def rows(self):
        """Every row so far, also those that were scrolled away."""
        columns = range(self.screen.columns)
        above = ["".join(row[x].data for x in columns) for row in self.screen.history.top]
        rows = [*(row.rstrip() for row in above), *self.display]
        while rows and not rows[-1]:
            rows.pop()
        return rows

    @property
    def row(self):
        """The index of the cursor's row in `rows`."""
        return len(self.screen.history.top) + self.screen.cursor.y

    def wait_for(self, text):
        """Read until `text` stands below the last answer and the cursor behind a prompt."""
        limit = time.monotonic() + SECONDS
        while not (text in "\n".join(self.rows[self.answered :]) and self._at_a_prompt()):
            if not self._read(limit):
                raise AssertionError(f"ended before it asked {text!r}:\n" + "\n".join(self.rows))
        # Python loses a Ctrl-C between the prompt and its wait for the first key.
        wait_until(self._waits, SECONDS, "waiting for keys")

    def type(self, keys):
        """Type the keys. The last of them ends the row: ENTER, CTRL_C or CTRL_D."""
        self.answered = self.row + 1
        self.child.send(keys)

    def end(self):
        """Read to the end; return the exit status."""
        limit = time.monotonic() + SECONDS
        while self._read(limit):
            pass
        return self.child.wait()

    def _waits(self):
        """Return whether the command sleeps, and not only for a moment."""
        asking = psutil.Process(self.child.pid)
        before = asking.num_ctx_switches()
        time.sleep(0.1)
        still = asking.num_ctx_switches() == before
        return still and asking.status() == psutil.STATUS_SLEEPING

    def _at_a_prompt(self):
        cursor = self.screen.cursor
        return self.screen.display[cursor.y][: cursor.x].endswith("): ")

    def _read(self, limit):
        """Show what the command has written; return False at its end."""
        try:
            self.stream.feed(self.child.read_nonblocking(4096, max(limit - time.monotonic(), 0)))
        except pexpect.EOF:
            return False
        except pexpect.TIMEOUT:
            raise AssertionError(f"silent for {SECONDS} s:\n" + "\n".join(self.rows)) from None
        return True


def check_screen(name, rows, folder=SCREENS):
    """Raise AssertionError unless the rows are the screen `name`; SCREENS=write stores them."""
    path, shown = folder / f"{name}.txt", "\n".join(rows) + "\n"
    asked = os.environ.get("SCREENS", "compare")
    if asked not in ("compare", "write"):
        raise ValueError(f"SCREENS={asked!r} is not one of: compare, write.")
    if asked == "write":
        folder.mkdir(exist_ok=True)
        path.write_text(shown, "utf-8")
    stored = path.read_text("utf-8") if path.exists() else ""
    if stored != shown:
        before, now = (text.splitlines(keepends=True) for text in (stored, shown))
        raise AssertionError(
            f"tests/bake/screens/{name}.txt differs from the terminal. If that is wanted, run\n"
            "    SCREENS=write ./script/test tests/bake/test_prompts.py\n"
            "and read the difference before you commit it:\n"
            + "".join(difflib.unified_diff(before, now, "stored", "shown"))
        )
