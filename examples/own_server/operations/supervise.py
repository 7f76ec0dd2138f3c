"""`python -m operations.supervise -c supervisord.conf`

supervisord, but:

- A program that cannot be kept running ends it with exit status 1, so that the platform restarts
  the container or keeps the previous deploy. supervisord alone would stay up, and an event listener
  that stops it makes it exit 0 (D-33).
- A program that starts well, but ends again and again, counts as such a program too. supervisord
  would start it for ever (D-62).
- A setting that is refused ends it at once with exit status 2, before any program is started.
- What the programs print reaches standard output in whole lines, whatever standard output is. For
  supervisord it could not be a socket, as systemd's journal is (D-69).
- A log that cannot be written, as on a full disk, costs lines of the log and nothing else. So does
  a reader of standard output that has stopped reading.
- It needs no folder of the project to write to. supervisord could not make its socket there (D-70).
- If supervisord itself fails, its programs are stopped first. None is left running unsupervised.
"""

import errno
import os
import select
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
import traceback
import zlib
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

from supervisor import events, loggers, supervisord
from supervisor.dispatchers import PDispatcher
from supervisor.medusa.asyncore_25 import ExitNow
from supervisor.process import Subprocess
from supervisor.states import SupervisorStates

from operations.standard_output import Output, append_to_file, open_what_is_closed

# The exit status of a worker that ends itself because it gets no tasks any more, to be started
# again. operations/watchdog.py has the same number, and allows it three times an hour: that is no
# loop, and is not counted here.
TAKES_NO_TASKS = 75

# A program that ends more often than this, within so many seconds, is in a loop. Such a worker
# lives for 10 s (`startsecs`), and may need 35 s to die: nine ends take 2 to 7 minutes. What passes
# by itself must not take the website down. Neither six restarts of Redis that each cost the worker,
# nor a system that kills it every two minutes for want of memory, is a loop.
MOST_ENDS = 8
WITHIN = 600

# The exit status of manage.py for a setting that is refused. To start it again does not help.
REFUSED_SETTING = 2

# Bytes. A program that prints more without the end of a line has its line cut.
LONGEST_LINE = 2**18

# Seconds for a slow reader to take the last lines. The programs have had 27 of the 30 s after which
# platforms kill a container.
LAST_LINES = 2

# What supervisord tells when a program has ended: too early, by itself, or because it was stopped.
ENDS = (
    events.ProcessStateBackoffEvent,
    events.ProcessStateExitedEvent,
    events.ProcessStateStoppedEvent,
)

OUTPUT = Output(1)
ERRORS = Output(2)


class ProgramLog(loggers.Handler):
    """Passes on what one program prints, in whole lines, so that no two programs share one."""

    def __init__(self, output: Output) -> None:
        super().__init__(output)
        self.half_line = b""
        self.half_line_before = b""

    def emit(self, record: loggers.LogRecord) -> None:
        lines, newline, self.half_line = (self.half_line + record.msg).rpartition(b"\n")
        self.stream.write(lines + newline)
        if len(self.half_line) > LONGEST_LINE:
            self.end_line()

    def end_line(self) -> None:
        if self.half_line:
            self.stream.write(self.half_line + b"\n")
            self.half_line = b""

    def end_line_that_does_not_grow(self) -> None:
        """Pass on half a line that was the same at the last call, as a question or dots are."""
        if self.half_line == self.half_line_before:
            self.end_line()
        self.half_line_before = self.half_line

    def remove(self) -> None:
        """Nothing: `supervisorctl clear` calls it to delete the file of a log."""

    def reopen(self) -> None:
        """Nothing: SIGUSR2 calls it after a log has been rotated."""


class OutputReader:
    """Asks supervisord's main loop to wake up when the reader of standard output takes more.

    The names of its methods are supervisord's.
    """

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return bool(OUTPUT.waiting)

    def handle_read_event(self) -> None:
        """Nothing: it only means that the other end of a socket was closed."""

    def handle_write_event(self) -> None:
        OUTPUT.flush()

    def handle_error(self) -> None:
        """Let the error go on, which ends supervisord. It is called in an `except` clause."""
        raise


class Options(supervisord.ServerOptions):
    def make_http_servers(self, supervisor: supervisord.Supervisor) -> list[tuple[Any, Any]]:
        for config in self.server_configs:
            if config["family"] == socket.AF_UNIX and cannot_be_written(config["file"]):
                self.move_socket(config)
        try:
            return super().make_http_servers(supervisor)
        except OSError as error:
            reason = error.strerror or error.args[0]
            if reason == errno.EADDRINUSE:
                raise  # supervisord has a sentence for it
            sys.exit(f"{self.serverurl}, as supervisord.conf names it, cannot be made: {reason}.")

    def move_socket(self, config: dict[str, Any]) -> None:
        """Put the socket and the pid file into a folder of our own, and say where that is."""
        # supervisorctl reads the socket's path from supervisord.conf. The only name in there that
        # differs from service to service is the project's folder, so the path is in that folder. A
        # path in /tmp would consist of folders that all users of the machine share, and that belong
        # to whoever comes first. With `PrivateTmp=` in a unit, no other shell would see it.
        wanted = config["file"]
        folder = private_folder(wanted)
        config["file"] = f"{folder}/{Path(wanted).name}"
        self.serverurl = f"unix://{config['file']}"
        self.pidfile = f"{folder}/supervisord.pid"
        is_linked = os.path.realpath(wanted) == os.path.realpath(config["file"])
        if not is_linked:
            self.logger.info(
                f"{Path(wanted).parent} cannot be written, and need not be. This service is reached"
                f" by `supervisorctl -c supervisord.conf -s {self.serverurl}`, and without `-s`"
                f" once root has run `ln -sfn {config['file']} {wanted}`."
            )


class Supervisor(supervisord.Supervisor):
    failure = ""  # of the class, since supervisord keeps the object to itself

    def __init__(self, options: Options) -> None:
        super().__init__(options)
        # {program: when it ended, as far as that still counts}
        self.ends: dict[str, list[float]] = {}

    def runforever(self) -> None:
        # Here and not earlier: run() clears all subscriptions.
        events.subscribe(events.ProcessStateFatalEvent, self.give_up)
        events.subscribe(events.ProcessStateExitedEvent, self.count)
        for end in ENDS:
            events.subscribe(end, self.pass_on_last_words)
        events.subscribe(events.Tick5Event, self.pass_on_half_lines)
        if os.isatty(0):
            self.end_with_the_terminal()
        has_ended_in_order = False
        try:
            super().runforever()
        except ExitNow:
            has_ended_in_order = True  # no program runs any more
            raise
        finally:
            if not has_ended_in_order:
                say(traceback.format_exc())
                self.stop_programs()

    def end_with_the_terminal(self) -> None:
        """A terminal that is closed ends it, as Ctrl-C does. Elsewhere SIGHUP restarts all."""

        def hang_up(_: int, frame: FrameType | None) -> None:
            self.options.signal_receiver.receive(signal.SIGTERM, frame)

        signal.signal(signal.SIGHUP, hang_up)

    def count(self, event: events.ProcessStateEvent) -> None:
        """Note that a program has ended without being told to, and give up if that is a loop.

        `supervisorctl stop` and `restart` do not come here. Neither does a program that ends within
        its `startsecs`: supervisord counts those by itself.
        """
        if event.process.exitstatus == TAKES_NO_TASKS:
            return
        name = event.process.config.name
        now = time.monotonic()
        recent = [ended for ended in self.ends.get(name, []) if now - ended < WITHIN]
        self.ends[name] = [*recent, now]
        if len(self.ends[name]) > MOST_ENDS:
            self.give_up(event)

    def give_up(self, event: events.ProcessStateEvent) -> None:
        # During a stop or a restart it means nothing: supervisord then says the same of a program
        # that was waiting for its next start.
        if self.options.mood == SupervisorStates.RUNNING:
            name = event.process.config.name
            Supervisor.failure = f"{name} could not be kept running: see its log above."
            self.options.mood = SupervisorStates.SHUTDOWN

    def get_process_map(self) -> dict[int, PDispatcher | OutputReader]:
        """{fd: who is asked about it} for the main loop, which calls this once each time round.

        The programs are left out while too much waits for the reader of standard output.
        """
        channels = {} if OUTPUT.is_full() else super().get_process_map()
        return {**channels, OUTPUT.fd: OutputReader()}

    def programs(self) -> list[Subprocess]:
        found = []
        for group in self.process_groups.values():
            found += group.processes.values()
        return found

    def pass_on_last_words(self, event: events.ProcessStateEvent) -> None:
        """Pass on what a program printed last, which may not be a whole line."""
        for log in logs_of(event.process):
            log.end_line()

    def pass_on_half_lines(self, _: events.Tick5Event) -> None:
        for program in self.programs():
            for log in logs_of(program):
                log.end_line_that_does_not_grow()

    def stop_programs(self) -> None:
        """Stop all programs in their order, with their signals and waits.

        supervisord's main loop would do the same, but has just failed.
        """
        for group in sorted(self.process_groups.values(), reverse=True):
            left = [program for program in group.processes.values() if is_running(program.pid)]
            for program in left:
                # One that is being stopped has had its signal: a second one means "at once".
                if not program.killing:
                    with suppress(OSError):
                        os.kill(program.pid, program.config.stopsignal)
            patience = max((program.config.stopwaitsecs for program in left), default=0)
            for program in self.wait_for_end(left, patience):
                # With its children: each program has a process group of its own.
                with suppress(OSError):
                    os.killpg(program.pid, signal.SIGKILL)
        for program in self.programs():
            for log in logs_of(program):
                log.end_line()

    def wait_for_end(self, programs: list[Subprocess], seconds: float) -> list[Subprocess]:
        """Wait until these programs have ended, and return those that run after so many seconds."""
        end = time.monotonic() + seconds
        while programs and time.monotonic() < end:
            running = [program for program in programs if is_running(program.pid)]
            # A program that cannot write cannot end, so its output is read. supervisord has just
            # failed and may fail here again: the programs are stopped all the same.
            with suppress(Exception):
                self.pass_on_output()
            programs = running
            time.sleep(0.1)
        return programs

    def pass_on_output(self) -> None:
        channels = self.get_process_map()
        listened_to = [fd for fd, channel in channels.items() if channel.readable()]
        for fd in select.select(listened_to, [], [], 0)[0]:
            channels[fd].handle_read_event()
        OUTPUT.flush()


def logs_of(program: Subprocess) -> list[ProgramLog]:
    """The logs of a program that go to standard output. It has none while it does not run."""
    found = []
    for channel in program.dispatchers.values():
        log = getattr(channel, "normallog", None)  # its standard input has none
        if log:
            found += [handler for handler in log.handlers if isinstance(handler, ProgramLog)]
    return found


def is_running(pid: int) -> bool:
    """Whether this child runs. One that has ended is gone for good after this question."""
    try:
        return bool(pid) and os.waitpid(pid, os.WNOHANG) == (0, 0)
    except ChildProcessError:
        return False


def cannot_be_written(path: str) -> bool:
    """Whether the folder of this path is there, but does not let this user make a file in it."""
    folder = Path(path).parent
    return folder.is_dir() and not os.access(folder, os.W_OK)


def private_folder(wanted: str) -> Path:
    """A folder in which only this user can make files, for a path that cannot be made.

    It is the same one at each start unless somebody has taken its name.
    """
    # systemd makes one for a unit with `RuntimeDirectory=`.
    given = Path(os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0])
    if given.is_absolute() and os.access(given, os.W_OK):
        return given
    checksum = zlib.crc32(os.fsencode(wanted))
    folder = Path(tempfile.gettempdir(), f"supervise-{os.getuid()}-{checksum:08x}")
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    is_ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
    if is_ours and stat.S_IMODE(found.st_mode) == 0o700:
        return folder
    return Path(tempfile.mkdtemp(prefix="supervise-"))


add_file = loggers.handle_file


def log_to_output(logger: loggers.Logger, filename: str, fmt: str, *rest: Any, **more: Any) -> None:
    """What supervisord calls for `stdout_logfile`. For /dev/stdout nothing is opened."""
    if filename != "/dev/stdout":
        add_file(logger, filename, fmt, *rest, **more)
        return
    logger.addHandler(ProgramLog(OUTPUT))


def log_own_lines(logger: loggers.Logger, fmt: str) -> None:
    """What supervisord calls for its own log: its lines go the same way as the programs'."""
    handler = loggers.StreamHandler(OUTPUT)
    handler.setFormat(fmt)
    handler.setLevel(logger.level)
    logger.addHandler(handler)


def lose_the_line(handler: loggers.Handler) -> None:
    """What a handler of supervisord's logs does in an `except` clause, if it could not write.

    supervisord prints a traceback. Where stderr is on the same full disk that fails as well, and
    ended supervisord.
    """
    if not isinstance(sys.exc_info()[1], OSError):
        say(traceback.format_exc())


def say(text: str) -> None:
    """Print it to standard error, after all that was passed on before."""
    OUTPUT.finish(LAST_LINES)
    ERRORS.write(text.rstrip().encode(errors="replace") + b"\n")
    ERRORS.finish(LAST_LINES)


def forget_what_cannot_be_written() -> None:
    """Python writes the rest of its output at the end, and exits with 120 if that fails."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def prepare_environment() -> None:
    # A `.env` that script/dev wrote may have been copied along, with DEBUG=true in it.
    os.environ.setdefault("DEBUG", "false")
    # An empty variable counts as not set. gunicorn ends with a traceback at an empty one.
    if not os.environ.get("WEB_CONCURRENCY", "1").strip():
        del os.environ["WEB_CONCURRENCY"]
    # The programs are found beside this Python, also when its environment is not activated.
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"


def end_at_signals() -> None:
    """End at SIGTERM and Ctrl-C, with the status that a shell gives them.

    As a container's first process it would ignore them until supervisord listens.
    """

    def end(number: int, _: FrameType | None) -> None:
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)


def prepare_output() -> None:
    open_what_is_closed()
    append_to_file(OUTPUT.fd)
    append_to_file(ERRORS.fd)


def check_settings() -> int:
    """Run `manage.py check`, and return its exit status.

    A refused setting would otherwise be tried eight times before it ends the container.
    """
    # The check writes to a pipe, since it fails where it cannot write. It gets a process group of
    # its own, so that a Ctrl-C ends only this process, and then the check with it.
    check = subprocess.run(
        [sys.executable, "manage.py", "check"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        process_group=0,
    )
    say(check.stdout)
    return check.returncode


def find_temporary_folder() -> None:
    """Raises SystemExit with status 1 if there is none, which supervisord and gunicorn need."""
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        sys.exit("No folder for temporary files can be written: mount a tmpfs at /tmp.")


def run_supervisord() -> None:
    """Run it with our classes until all programs have been stopped."""
    loggers.handle_file = log_to_output
    loggers.handle_stdout = log_own_lines
    loggers.Handler.handleError = lose_the_line
    supervisord.ServerOptions = Options
    supervisord.Supervisor = Supervisor
    try:
        supervisord.main()
    except Exception as error:
        Supervisor.failure = f"supervisord failed, its programs are stopped: {error!r}"


def main() -> int:
    prepare_environment()
    end_at_signals()
    prepare_output()
    find_temporary_folder()
    status = check_settings()
    if status:
        return REFUSED_SETTING if status == REFUSED_SETTING else 1
    run_supervisord()
    if Supervisor.failure:
        say(Supervisor.failure)
        return 1
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    finally:
        OUTPUT.finish(LAST_LINES)
        forget_what_cannot_be_written()
