"""`python -m operations.supervise -c supervisord.conf`

supervisord, but:

- A program that cannot be kept running ends it with exit status 1, so that the platform restarts
  the container or keeps the previous deploy. supervisord alone would stay up, and an event listener
  that stops it makes it exit 0.
- A program that starts well, but ends again and again, counts as such a program too. supervisord
  would start it for ever.
- A log that cannot be written, as on a full disk, costs lines of the log and nothing else.
- If supervisord itself fails, its programs are stopped first. None is left running unsupervised.
"""

import errno
import os
import select
import signal
import subprocess
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path

from supervisor import events, loggers, supervisord
from supervisor.medusa.asyncore_25 import ExitNow
from supervisor.states import SupervisorStates

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


class Options(supervisord.ServerOptions):
    def make_http_servers(self, supervisor):
        try:
            return super().make_http_servers(supervisor)
        except OSError as error:
            reason = error.strerror or error.args[0]
            if reason == errno.EADDRINUSE:
                raise  # supervisord has a sentence for it
            sys.exit(f"{self.serverurl}, as supervisord.conf names it, cannot be made: {reason}.")


class Supervisor(supervisord.Supervisor):
    failure = ""  # of the class, since supervisord keeps the object to itself

    def __init__(self, options):
        super().__init__(options)
        self.ends = {}  # {program: when it ended, as far as that still counts}

    def runforever(self):
        # Here and not earlier: run() clears all subscriptions.
        events.subscribe(events.ProcessStateFatalEvent, self.give_up)
        events.subscribe(events.ProcessStateExitedEvent, self.count)
        if os.isatty(0):
            # A terminal that is closed ends it, as Ctrl-C does. Elsewhere SIGHUP restarts all.
            receive = self.options.signal_receiver.receive
            signal.signal(signal.SIGHUP, lambda _, frame: receive(signal.SIGTERM, frame))
        try:
            super().runforever()
        except ExitNow:
            raise  # the orderly end, after which no program runs
        except BaseException:
            say(traceback.format_exc())
            self.stop_programs()
            raise

    def count(self, event):
        """Note that a program has ended without being told to, and give up if that is a loop.

        `supervisorctl stop` and `restart` do not come here. Neither does a program that ends within
        its `startsecs`: supervisord counts those by itself.
        """
        if event.process.exitstatus == TAKES_NO_TASKS:
            return
        name, now = event.process.config.name, time.monotonic()
        recent = [ended for ended in self.ends.get(name, []) if now - ended < WITHIN]
        self.ends[name] = [*recent, now]
        if len(self.ends[name]) > MOST_ENDS:
            self.give_up(event)

    def give_up(self, event):
        # During a stop or a restart it means nothing: supervisord then says the same of a program
        # that was waiting for its next start.
        if self.options.mood == SupervisorStates.RUNNING:
            name = event.process.config.name
            Supervisor.failure = f"{name} could not be kept running: see its log above."
            self.options.mood = SupervisorStates.SHUTDOWN

    def stop_programs(self):
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
            end = time.monotonic() + patience
            while left and time.monotonic() < end:
                running = [program for program in left if is_running(program.pid)]
                # A program that cannot write cannot end. This reads, too, what the last one said.
                with suppress(Exception):
                    self.pass_on_output()
                left = running
                time.sleep(0.1)
            for program in left:
                # With its children: each program has a process group of its own.
                with suppress(OSError):
                    os.killpg(program.pid, signal.SIGKILL)

    def pass_on_output(self):
        programs = [p for group in self.process_groups.values() for p in group.processes.values()]
        channels = [channel for program in programs for channel in program.dispatchers.values()]
        channels = {channel.fd: channel for channel in channels if channel.readable()}
        for fd in select.select(channels, [], [], 0)[0]:
            channels[fd].handle_read_event()


def is_running(pid) -> bool:
    """Whether this child runs. One that has ended is gone for good after this question."""
    try:
        return bool(pid) and os.waitpid(pid, os.WNOHANG) == (0, 0)
    except ChildProcessError:
        return False


def lose_the_line(handler):
    """What a handler of supervisord's logs does in an `except` clause, if it could not write.

    supervisord prints a traceback. Where stderr is on the same full disk that fails as well, and
    ended supervisord.
    """
    if not isinstance(sys.exc_info()[1], OSError):
        say(traceback.format_exc())


def say(text):
    with suppress(OSError):
        print(text.rstrip(), file=sys.stderr, flush=True)


def forget_what_cannot_be_written():
    """Python writes the rest of its output at the end, and exits with 120 if that fails."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def main() -> int:
    # A `.env` that script/dev wrote may have been copied along, with DEBUG=true in it.
    os.environ.setdefault("DEBUG", "false")
    # The programs are found beside this Python, also when its environment is not activated.
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}"
    # As a container's first process it would otherwise ignore SIGTERM until supervisord listens.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGINT, lambda *_: sys.exit(130))
    # A refused setting would otherwise be tried eight times before it ends the container. The check
    # writes to a pipe, since it fails where it cannot write. A Ctrl-C is not for it: it is ended.
    check = subprocess.run(
        [sys.executable, "manage.py", "check"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        process_group=0,
    )
    say(check.stdout)
    if check.returncode:
        return 1
    loggers.Handler.handleError = lose_the_line
    supervisord.ServerOptions = Options
    supervisord.Supervisor = Supervisor
    try:
        supervisord.main()
    except Exception as error:
        Supervisor.failure = f"supervisord failed, its programs are stopped: {error!r}"
    if Supervisor.failure:
        say(Supervisor.failure)
        return 1
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    finally:
        forget_what_cannot_be_written()
