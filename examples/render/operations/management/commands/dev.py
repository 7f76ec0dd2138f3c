"""`manage.py dev`: everything for development in one terminal. script/dev prepares it."""

import errno
import os
import signal
import socket
import sys
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Iterable
from pathlib import Path
from types import FrameType
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.core.management.color import supports_color
from django.core.management.commands.runserver import naiveip_re
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError
from redis.retry import Retry

from operations.development import local_redis
from operations.development.programs import (
    Ending,
    InvalidProcfile,
    Program,
    Screen,
    describe,
    read_procfile,
    restart,
    stop,
)
from operations.watchdog import TAKES_NO_TASKS

ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # Ctrl-C, a stop, a closed terminal
REDIS_STARTS_WITHIN = 10  # seconds

# Each command is free of a Redis of our own, whatever the plan of the service's Redis counts: a
# worker asks it every second, and so a saved file is worked with sooner.
WITH_OWN_REDIS = {"CELERY_POLLING_INTERVAL": "1"}


class Command(BaseCommand):
    help = (
        "Runs the programs of Procfile.dev (web, worker, beat) and a Redis, unless another is set. "
        "They work with what you save at once. For development."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("address", nargs="?", default="8000", help="as for runserver")

    def handle(self, *, address: str, **options: Any) -> None:
        if not settings.DEBUG:
            raise CommandError("DEBUG is off, and `dev` is for development: set DEBUG=true.")
        check_address(address)
        try:
            commands = read_procfile(settings.BASE_DIR / "Procfile.dev")
        except InvalidProcfile as error:
            raise CommandError(str(error)) from None

        self.ending = Ending()
        self.migrating = False
        self.redis: Program | None = None
        self.programs: list[Program] = []
        self.screen = Screen(
            ["dev", *commands, "redis"],
            coloured=options["force_color"] or (supports_color() and not options["no_color"]),
            when_closed=self.ending.set,
        )
        for number in ENDS:
            signal.signal(number, self.end)
        with tempfile.TemporaryDirectory(prefix="redis-") as folder:
            try:
                self.run(commands, address, folder)
            finally:
                self.stop_all()

    def end(self, number: int, frame: FrameType | None) -> None:
        """Note a signal.

        An exception could come in the middle of the start of a program, which would then be lost.
        """
        self.ending.set()
        if self.migrating:
            # It starts no program, and may wait long for the database.
            raise KeyboardInterrupt

    def stop_all(self) -> None:
        if self.redis is None and not self.programs:
            return
        self.screen.say("dev", "Stopping.")
        stop(self.programs)
        if self.redis is not None:
            # Last: the worker gives back its tasks to it.
            stop([self.redis])

    def run(self, commands: dict[str, str], address: str, folder: str) -> None:
        variables = {
            **os.environ,
            "ADDRESS": address,
            # `python` and `celery` are found beside this Python, also if its environment is not
            # activated.
            "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",
            # Lines appear when they are written, and not by the page.
            "PYTHONUNBUFFERED": "1",
        }
        port = self.redis_port()
        if port is not None:
            variables |= {"CELERY_BROKER_URL": local_redis.url_at(port), **WITH_OWN_REDIS}
            self.start_redis(port, folder)
        self.migrate()
        for name, command in commands.items():
            if self.ending.is_set():
                return
            program = self.program(name, command, variables)
            self.programs.append(program)
            program.start()
        self.work()

    def program(self, name: str, command: str, variables: dict[str, str]) -> Program:
        return Program(
            name, command, folder=settings.BASE_DIR, variables=variables, screen=self.screen
        )

    def migrate(self) -> None:
        """Migrate the database, which a signal interrupts."""
        try:
            self.migrating = True
            if not self.ending.is_set():
                call_command("migrate", verbosity=0)
        except KeyboardInterrupt:
            self.ending.set()
        finally:
            self.migrating = False

    # The programs

    def work(self) -> None:
        """Keep the programs at work until a signal comes. Raises CommandError if Redis ends."""
        for changed in self.changes():
            if changed and not self.ending.is_set():
                restart(p for p in self.programs if p.process is None or is_celery(p))
            for program in self.programs:
                self.look_after(program)
            self.check_redis()

    def changes(self) -> Iterable[bool]:
        try:
            from operations.development import sources
        except ImportError:
            raise CommandError(
                "watchfiles is not installed: `pip install -r requirements-dev.txt`."
            ) from None
        return sources.changes(settings.BASE_DIR, self.ending)

    def look_after(self, program: Program) -> None:
        """Tell of a program that has ended by itself. A save starts it again."""
        status = program.status()
        if status is None:
            return
        program.make_end()
        if status == TAKES_NO_TASKS:
            program.start()
            return
        self.screen.say(
            "dev",
            f"{program.name} {describe(status)}: see its last lines for the reason."
            " It starts again when you save a file.",
        )

    # Redis

    def redis_port(self) -> int | None:
        """The port for a Redis of our own, or None if another Redis is set."""
        name = settings.REDIS_URL_NAME
        dotenv = settings.BASE_DIR / ".env"
        if settings.REDIS_URL_IS_SET:
            port = local_redis.own_port(settings.REDIS.url)
            if port is None:
                return None
        else:
            port = local_redis.port_in(dotenv, name)
        if port is None:
            # Nothing is written for a Redis that cannot be started.
            self.find_redis_server()
            port = local_redis.free_port()
            self.tell_others(dotenv, name, local_redis.url_at(port))
        if local_redis.is_taken(port):
            raise CommandError(
                f"Port {port}, where {name} puts the Redis of this service, is in use. Is"
                f" script/dev running already? If not, delete the line {name}=… from .env:"
                " a free port is written there."
            )
        return port

    def tell_others(self, dotenv: Path, name: str, url: str) -> None:
        """Write the URL of our Redis where other commands of this service find it."""
        try:
            local_redis.write_to(dotenv, name, url)
        except OSError as error:
            self.screen.say(
                "dev",
                f".env cannot be written ({error.strerror}): in a second terminal, say"
                f" export {name}={url}",
            )
        else:
            self.screen.say("dev", f"{name}={url} is now in .env.")

    def find_redis_server(self) -> str:
        server = local_redis.find_server()
        if server is None:
            raise CommandError(
                "No Redis found. Install one (`apt-get install redis-server`, `brew install"
                f" valkey`), or set {settings.REDIS_URL_NAME} in .env."
            )
        return server

    def start_redis(self, port: int, folder: str) -> None:
        """Start it, and wait until it answers. Raises CommandError if it does not."""
        command = local_redis.command(self.find_redis_server(), port, folder)
        self.redis = self.program("redis", command, dict(os.environ))
        self.redis.start()
        deadline = time.monotonic() + REDIS_STARTS_WITHIN
        while not self.ending.is_set():
            self.check_redis()
            try:
                Redis(port=port, retry=Retry(NoBackoff(), 0)).ping()
                return
            except ConnectionError:
                if time.monotonic() > deadline:
                    raise CommandError(
                        f"redis does not answer after {REDIS_STARTS_WITHIN} s."
                    ) from None
            time.sleep(0.05)

    def check_redis(self) -> None:
        status = None if self.redis is None else self.redis.status()
        if status is not None:
            raise CommandError(f"redis {describe(status)}: see its last lines for the reason.")


def is_celery(program: Program) -> bool:
    """Whether it must be started again to work with a changed file."""
    return program.command.startswith("celery ")


def check_address(address: str) -> None:
    """Raises CommandError if the web server cannot listen there, before anything is started."""
    found = naiveip_re.match(address)
    if found is None or int(found["port"]) > 65535:
        raise CommandError(f"{address} is not a port or ADDRESS:PORT, as in 8000 or 0.0.0.0:8000.")
    host = (found["addr"] or "127.0.0.1").strip("[]")
    family = socket.AF_INET6 if found["ipv6"] else socket.AF_INET
    try:
        with socket.socket(family) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, int(found["port"])))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise CommandError(
                f"Port {found['port']} is in use by another program: end that one, or choose"
                " another port, as in ./script/dev 8001."
            ) from None
        raise CommandError(f"The web cannot listen on {address}: {error.strerror}.") from None
