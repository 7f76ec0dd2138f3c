"""How soon `script/dev` works with a saved file, where the row polls Redis every 10 s.

    python benchmarks/dev.py [--rounds N]

A service for Upstash is run by `manage.py dev` as it is, and as it would be with the row's own
polling interval. A file is saved N times; the time ends when the new worker says that it is ready.
"""

import argparse
import contextlib
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from harness.deployments import Venv  # noqa: E402
from harness.processes import Failed, Program, free_port, wait_until  # noqa: E402
from harness.redis_server import INSTALL, find_server  # noqa: E402
from harness.service import BUILD, Commands, Project, bake  # noqa: E402

# Of operations/management/commands/dev.py.
POLLING = 'WITH_OWN_REDIS = {"CELERY_POLLING_INTERVAL": "1"}\n'
WITHOUT = "WITH_OWN_REDIS = {}\n"
READY = " ready."
WAIT = 60  # The most seconds that a worker may take.


def seconds_until_ready(project, folder, rounds):
    """Return the seconds of each round."""
    server = find_server(tls=False)
    if server is None:
        raise Failed(INSTALL)
    environment = {
        "PATH": os.pathsep.join([str(project.venv / "bin"), str(Path(server).parent)]),
        "DEBUG": "true",
        "DATABASE_URL": f"sqlite:///{folder / 'db.sqlite3'}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONUNBUFFERED": "1",
    }
    command = [str(project.python), "manage.py", "dev", str(free_port())]
    log = folder / "dev.log"
    program = Program("dev", command, cwd=project.path, env=environment, log=log)
    found = []
    try:
        wait_until(lambda: READY in program.output(), WAIT, "the first worker is ready")
        for number in range(rounds):
            time.sleep(
                2 + number % 3
            )  # The saves fall into different moments of the worker's wait for Redis.
            seen = program.output().count(READY)
            began = time.monotonic()
            os.utime(project.path / "authentication" / "views.py")
            wait_until(lambda seen=seen: program.output().count(READY) > seen, WAIT, "a new worker")
            found.append(time.monotonic() - began)
    finally:
        with contextlib.suppress(ProcessLookupError):
            program.stop(20)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    folder = Path(tempfile.mkdtemp(prefix="dev-"))
    try:
        venv = Venv(folder / "venv")
        project = Project(bake(folder / "baked", redis_provider="upstash"), venv=venv.path)
        development = {"dev": {"DEBUG": "true"}}
        build = BUILD.replace("requirements.txt", "requirements-dev.txt")
        venv.build(project, Commands(build, "true", {"dev": "true"}, development))
        found = {}
        for name in ("the row's", "1 s"):
            (folder / name).mkdir()
            path = shutil.copytree(project.path, folder / name / project.slug)
            if name == "the row's":
                dev = path / "operations" / "management" / "commands" / "dev.py"
                text = dev.read_text()
                assert text.count(POLLING) == 1
                dev.write_text(text.replace(POLLING, WITHOUT))
            copy = Project(path, venv=venv.path)
            found[name] = statistics.median(seconds_until_ready(copy, folder / name, rounds))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    before, after = found.values()
    print(f"a saved file is worked with after {after:.1f} s, with the row's polling interval after"
          f" {before:.1f} s, ratio {after / before:.2f}")  # fmt: skip


if __name__ == "__main__":
    main()
