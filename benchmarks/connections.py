"""Connections to Redis, what one costs, and the memory of a service: ours, and Celery's defaults.

    python benchmarks/connections.py [--seconds N] [--results] [--processes N]

Both services run in turn on the same servers and take the same load: six clients that send tasks,
one that asks for a page, and `celery inspect ping` in the middle of it. Every fourth task sends
another one. Redis's own CLIENT LIST is read 20 times a second. Then four clients register
people. With --results both keep the results of all tasks.
"""

import argparse
import contextlib
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.dont_write_bytecode = True
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import psutil  # noqa: E402

from benchmarks.faults import ending  # noqa: E402
from benchmarks.faults.services import OURS, PLAIN, Ours, Plain, versions  # noqa: E402
from benchmarks.faults.stack import PAGE, Shape, Stack  # noqa: E402
from harness.certificates import Authority  # noqa: E402
from harness.deployments import Venv  # noqa: E402
from harness.processes import Failed, run  # noqa: E402

SENDERS = 6
PEOPLE = 4  # The number of clients that register at the same time.
CONNECTS = 60  # In each of three rounds, which take turns.
KEPT = """
import os

CELERY_TASK_IGNORE_RESULT = False
CELERY_RESULT_BACKEND = os.environ["CELERY_RESULT_BACKEND"]
CELERY_REDIS_BACKEND_USE_SSL = CELERY_BROKER_USE_SSL
"""
# Run by the service's Python in its folder: the CPU of a connect, in ms, by each class.
COST = """
import json, os, sys, time
sys.path.insert(0, os.getcwd())
os.environ["DJANGO_SETTINGS_MODULE"] = "config.settings"
import django
django.setup()
import redis
from django.conf import settings
url, ca, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
theirs = {"ssl_ca_certs": ca, "ssl_cert_reqs": "required", "ssl_check_hostname": True}

def cost(options):
    pool = redis.ConnectionPool.from_url(url, **options)
    began = time.process_time()
    for _ in range(count):
        connection = pool.make_connection()
        connection.connect()
        connection.disconnect()
    return 1000 * (time.process_time() - began) / count

rounds = [(cost(theirs), cost(settings.REDIS.client())) for _ in range(3)]
print(json.dumps([sorted(column)[1] for column in zip(*rounds)]))
"""


class Load:
    """Threads that ask the website until they are told to end; a context manager."""

    def __init__(self, stack):
        self._stack = stack
        self._end = threading.Event()
        self._lock = threading.Lock()
        self.sent = self.failed = 0
        self._threads = [threading.Thread(target=self._send) for _ in range(SENDERS)]
        self._threads.append(threading.Thread(target=self._look))

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._end.set()
        for thread in self._threads:
            thread.join()

    def _send(self):
        while not self._end.is_set():
            with self._lock:
                self._stack.last_number += 1
                number = self._stack.last_number
            kind = "forward" if number % 4 == 0 else "numbered"
            fields = {"kind": kind, "number": str(number)}
            try:
                status = self._stack.web.post("/numbered/", 20, fields | {"seconds": "0"})
            except OSError:
                status = 0
            with self._lock:
                self.sent += status == 200
                self.failed += status != 200

    def _look(self):
        path = "/readyz" if self._stack.kind.name == OURS else PAGE
        while not self._end.wait(0.2):
            with contextlib.suppress(OSError):
                self._stack.web.get(path, 20)


def connected(stack):
    """Return {program: connections to Redis} of this moment."""
    clients = stack.redis.command("CLIENT", "LIST").splitlines()
    ports = {int(line.split(" addr=")[1].split()[0].rpartition(":")[2] or 0) for line in clients}
    # This program asks over the Unix socket, which has port 0.
    ports -= {0}
    found = dict.fromkeys(("web", "worker", "beat", "others"), 0)
    for program, owned in owners(stack).items():
        found[program] += len(owned & ports)
        ports -= owned
    found["others"] += len(ports)
    return found


def owners(stack):
    """Return {program: the local ports of its connections to Redis}."""
    found = {"web": set(), "worker": set(), "beat": set()}
    for pid, command in stack.service.family().items():
        program = next((name for name in ("worker", "beat") if f" {name}" in command), None)
        program = program or ("web" if "gunicorn" in command else None)
        if program:
            with contextlib.suppress(psutil.Error):
                for each in psutil.Process(pid).net_connections("tcp"):
                    if each.raddr and each.raddr.port == stack.redis.port:
                        found[program].add(each.laddr.port)
    return found


def memory(stack):
    """Return the MiB of all processes of the service. What they share is counted once (PSS)."""
    total = 0
    for pid in stack.service.family():
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
            total += sum(int(line.split()[1]) for line in text.splitlines() if line[:4] == "Pss:")
    return total / 1024


def most(stack, seconds):
    """Return {program: count} and the sum of the moment with most connections."""
    peak = {}
    end = time.time() + seconds
    while time.time() < end:
        now = connected(stack)
        if sum(now.values()) > sum(peak.values()):
            peak = now
        ending.pause(0.05)
    return peak


def registrations(stack, seconds):
    """Return how many people a second can register."""
    end = time.time() + seconds
    done = []

    def register(client):
        while time.time() < end:
            name = f"person-{client}-{len(done)}-{time.time_ns()}"
            fields = {"username": name, "email": f"{name}@example.com"}
            fields |= dict.fromkeys(("password1", "password2"), "a long Passw0rd of theirs")
            if stack.web.post(PAGE, 30, fields) == 302:
                done.append(name)

    threads = [threading.Thread(target=register, args=[client]) for client in range(PEOPLE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(done) / seconds


def inspect(stack):
    """`celery inspect ping` against the running service."""
    done = stack.project.run(f"celery -A {stack.kind.package} inspect ping --timeout 3")
    if "pong" not in done.stdout:
        raise Failed(f"celery inspect ping:\n{done.stdout}{done.stderr}")


def measure(stack, seconds):
    """Measure one service under load."""
    with Load(stack) as load:
        ending.pause(3)
        began, before = time.time(), load.sent
        peak = most(stack, seconds)
        rate = (load.sent - before) / (time.time() - began)
        asking = threading.Thread(target=inspect, args=[stack])
        asking.start()
        with_inspect = most(stack, seconds)
        asking.join()
        mebibytes = memory(stack)
    people = registrations(stack, seconds)
    return {
        "registrations a second": round(people, 1),
        "peak": peak,
        "with inspect": with_inspect,
        "tasks sent a second": round(rate),
        "not sent": load.failed,
        "MiB": round(mebibytes),
    }


def cost_of_a_connect(stack, ca):
    """Return (ms of CPU with redis-py's class, with ours)."""
    project = stack.project
    command = [project.python, "-c", COST, stack.url(), str(ca), str(CONNECTS)]
    done = run(list(map(str, command)), cwd=project.path, env=project.environment(), seconds=120)
    if done.returncode:
        raise Failed(done.stdout + done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def shown(row):
    return " + ".join(f"{count} {program}" for program, count in row.items() if count)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=8, help="of each look")
    parser.add_argument("--results", action="store_true", help="keep the results of all tasks")
    parser.add_argument("--processes", type=int, default=2, help="of each worker")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="connections-"))
    found = {}
    try:
        authority = Authority(folder, "the CA of this benchmark")
        venv = Venv(folder / "venv")
        for kind_of in (Ours, Plain):
            kind = kind_of(folder / kind_of.__name__.lower(), authority, venv)
            stack = Stack(kind, Shape(processes=arguments.processes), authority)
            try:
                if arguments.results:
                    keep_results(stack)
                stack.start_and_wait()
                found[kind.name] = measure(stack, arguments.seconds)
                if kind.name == OURS:
                    costs = cost_of_a_connect(stack, authority.pem)
            finally:
                stack.close()
        used = versions(venv)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    show(found, costs, used)


def keep_results(stack):
    """Let the service keep all results in the same Redis."""
    settings = stack.project.path / stack.kind.package / "settings.py"
    settings.write_text(settings.read_text() + KEPT)
    for environment in stack.commands.environment.values():
        environment["CELERY_RESULT_BACKEND"] = stack.url()


def show(found, costs, used):
    theirs, ours = found[PLAIN], found[OURS]
    print(f"CPU of a connect: redis-py {costs[0]:.2f} ms, ours {costs[1]:.2f} ms,"
          f" ratio {costs[1] / costs[0]:.2f}")  # fmt: skip
    for what in ("peak", "with inspect"):
        numbers = {name: sum(row[what].values()) for name, row in found.items()}
        print(f"connections, {what}: {PLAIN} {numbers[PLAIN]} ({shown(theirs[what])}),"
              f" ours {numbers[OURS]} ({shown(ours[what])}),"
              f" ratio {numbers[OURS] / numbers[PLAIN]:.2f}")  # fmt: skip
    for what in ("tasks sent a second", "registrations a second", "MiB"):
        print(f"{what}: {PLAIN} {theirs[what]}, ours {ours[what]},"
              f" ratio {ours[what] / theirs[what]:.2f}")  # fmt: skip
    print(f"not sent: {PLAIN} {theirs['not sent']}, ours {ours['not sent']}")
    load = os.getloadavg()[0]
    print(f"Python {sys.version.split()[0]}, {used}, load of the machine {load:.1f}")


if __name__ == "__main__":
    main()
