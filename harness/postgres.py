"""A real PostgreSQL server for one test, from Debian's packages or from PATH."""

import glob
import os
import pwd
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path

from .processes import Failed, Program, free_port, run, wait_until

INSTALL = "no PostgreSQL server: apt-get install postgresql"


def find_programs():
    """Return the folder of initdb and postgres, or None."""
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    folders = sorted(glob.glob("/usr/lib/postgresql/*/bin"))
    return Path(folders[-1]) if folders else None


class Postgres:
    """A server on loopback whose user and database are both `postgres`; a context manager.

    PostgreSQL refuses to run as root, so there it runs as the user `nobody`.
    """

    def __init__(self):
        self.programs = find_programs()
        if self.programs is None:
            raise Failed(INSTALL)

    def __enter__(self):
        self._folder = Path(tempfile.mkdtemp(prefix="postgres-"))
        self.port = free_port()
        data, as_nobody = self._folder / "data", []
        if os.getuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(self._folder, nobody.pw_uid, nobody.pw_gid)
            as_nobody = ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}"]
            as_nobody.append("--clear-groups")
        environment = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "HOME": str(self._folder)}
        initdb = [str(self.programs / "initdb"), "-U", "postgres", "-A", "trust", "-N", "-D", data]
        command = [*as_nobody, *map(str, initdb)]
        done = run(command, cwd=self._folder, env=environment, seconds=60)
        if done.returncode:
            raise Failed(f"initdb: {done.stderr}")
        options = ["-c", "listen_addresses=127.0.0.1", "-k", str(self._folder), "-c", "fsync=off"]
        self._program = Program(
            "postgres",
            [*as_nobody, str(self.programs / "postgres"), "-D", str(data)]
            + ["-p", str(self.port), *options],
            cwd=self._folder,
            env=environment,
            log=self._folder / "log",
        )
        with ExitStack() as undo:
            undo.callback(self.__exit__)
            self._program.wait_for("ready to accept connections", 30)
            undo.pop_all()
        return self

    def __exit__(self, *_):
        self._program.kill()
        wait_until(lambda: not self._program.family(), 10, "the end of PostgreSQL")
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def url(self):
        """The value for DATABASE_URL."""
        return f"postgres://postgres@127.0.0.1:{self.port}/postgres"
