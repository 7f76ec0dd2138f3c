"""supervise.py and supervisord.conf: a program that fails, a stop, plain supervisord."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import pytest

from harness.answers import varied
from harness.processes import wait_until
from harness.service import bake

NAP = """
    import time

    from celery import shared_task


    @shared_task
    def nap(seconds):
        time.sleep(seconds)
"""

# A worker that lives longer than its `startsecs`, which are 0 here. It ends with these statuses,
# and then always with 1.
DIES = """
    import sys
    from pathlib import Path

    starts = Path("starts")
    before = len(starts.read_text()) if starts.exists() else 0
    starts.write_text("x" * (before + 1))
    sys.exit([75, 75, 0][before] if before < 3 else 1)
"""
# An extension of supervisord that fails in its main loop as soon as there is a file.
FAILS = """
    from pathlib import Path

    from supervisor import events


    def subscribe(supervisord):
        events.subscribe(events.Tick5Event, fail)


    def fail(event):
        if Path("fail").exists():
            raise MemoryError
"""
FULL = 4  # MiB


def supervise(place):
    return "python -m operations.supervise -c supervisord.conf"


def add(place, name, text):
    (place.project.path / name).write_text(textwrap.dedent(text).lstrip())


def edit_conf(place, old, new):
    conf = place.project.path / "supervisord.conf"
    text = conf.read_text()
    assert old in text
    conf.write_text(text.replace(old, new))


def edit_worker(place, **options):
    """Give the worker these options in supervisord.conf in place of its own."""
    conf = place.project.path / "supervisord.conf"
    before, head, rest = conf.read_text().partition("[program:celery_worker]\n")
    for option, value in options.items():
        rest, count = re.subn(rf"(?m)^{option}=.*", f"{option}={value}", rest, count=1)
        assert head and count
    conf.write_text(before + head + rest)


def test_a_program_that_cannot_be_kept_running_ends_the_container(
    deployment, redis_server, certificates, running
):
    server = redis_server(certificates.of_own)
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = taken.getsockname()[1]
        service = running(deployment("self_hosted").start(server.url(), port=port))
        (program,) = service.programs.values()
        # If that takes less than 90 s, platforms keep the previous deploy.
        assert program.wait(90) == 1
        assert program.family() == {}
    assert program.last_lines(1) == "django could not be kept running: see its log above."


@pytest.mark.all
def test_a_program_that_starts_and_dies_again_and_again_ends_the_container(
    deployment, redis_server, certificates, running, tmp_path
):
    server = redis_server(certificates.of_own)
    place = deployment("self_hosted").copy(tmp_path)
    add(place, "dies.py", DIES)
    edit_worker(place, command="python dies.py", startsecs=0)
    service = running(place.start(server.url()))
    (program,) = service.programs.values()
    service.wait_for_status("/healthz", 200, 20)
    assert program.wait(60) == 1
    assert program.family() == {}
    assert program.last_lines(1) == "celery_worker could not be kept running: see its log above."
    # That takes nine ends. The one with status 0 counts, and those with 75 do not.
    assert len((place.project.path / "starts").read_text()) == 2 + 9


def test_a_stop_between_two_starts_is_no_failure(
    deployment, redis_server, certificates, running, tmp_path
):
    server = redis_server(certificates.of_own)
    place = deployment("self_hosted").copy(tmp_path)
    edit_worker(place, command="false")
    service = running(place.start(server.url()))
    (program,) = service.programs.values()
    # The fourth start comes after 3 s.
    program.wait_for(r"(?s)(exited: celery_worker.*){3}", 30)
    assert set(service.stop(28).values()) == {0}
    assert "could not be kept running" not in service.output()


@pytest.mark.all
def test_a_full_disk_costs_lines_of_the_log_and_nothing_else(
    deployment, redis_server, certificates, running
):
    server = redis_server(certificates.of_own)
    place = deployment("self_hosted")
    # No file may grow beyond this size, at which the log's disk is full for the service.
    command = f"bash -c 'ulimit -f {FULL * 1024} && exec {supervise(place)}'"
    service = running(place.start(server.url(), command=command))
    (program,) = service.programs.values()
    service.wait_for_status("/readyz", 200, 60)

    def worker():
        return int(place.project.run("supervisorctl -c supervisord.conf pid celery_worker").stdout)

    first = worker()
    os.truncate(program.log, FULL * 2**20)
    # This is more than a pipe holds, so a program whose output is not read would hang.
    for _ in range(500):
        assert service.status(f"/healthz?{'x' * 100}")[0] == 200
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: worker() not in (0, first), 10, "a new worker")
    assert os.path.getsize(program.log) == FULL * 2**20, "the disk was not full"

    os.truncate(program.log, 0)
    program.wait_for(r"celery@\S+ ready\.", 30)
    service.status("/healthz?there-is-room-again")
    program.wait_for("there-is-room-again", 5)
    os.truncate(program.log, FULL * 2**20)
    assert set(service.stop(28).values()) == {0}


@pytest.mark.all
def test_a_supervisord_that_fails_stops_its_programs_first(
    deployment, redis_server, certificates, running, tmp_path
):
    server = redis_server(certificates.of_own)
    place = deployment("self_hosted").copy(tmp_path)
    add(place, "fails.py", FAILS)
    factory = "supervisor.rpcinterface_factory="
    section = f"[rpcinterface:fails]\n{factory}fails:subscribe\n\n[rpcinterface:supervisor]"
    edit_conf(place, "[rpcinterface:supervisor]", section)
    service = running(place.start(server.url()))
    (program,) = service.programs.values()
    service.wait_for_status("/readyz", 200, 60)
    add(place, "fail", "")
    assert program.wait(5 + 27) == 1
    assert program.family() == {}
    said = [
        "MemoryError",
        "Shutting down: Master",  # gunicorn
        "worker: Cold shutdown",  # The rest of the worker's soft shutdown without a task.
        "supervisord failed, its programs are stopped: MemoryError()",
    ]
    found = [service.output().find(text) for text in said]
    assert -1 not in found and found == sorted(found), said
    assert program.last_lines(1) == said[-1]


def test_a_terminal_that_is_closed_ends_the_service(
    deployment, redis_server, certificates, running
):
    server = redis_server(certificates.of_own)
    place = deployment("self_hosted")
    terminal, other_end = os.openpty()
    # A session without a terminal gets the first terminal that its first process opens.
    command = f"{supervise(place)} <{os.ttyname(other_end)}"
    service = running(place.start(server.url(), command=f"bash -c 'exec {command}'"))
    os.close(other_end)
    (program,) = service.programs.values()
    try:
        service.wait_for_status("/healthz", 200, 20)
    finally:
        os.close(terminal)
    assert program.wait(28) == 0
    assert program.family() == {}


def test_a_control_socket_that_cannot_be_made_is_named(deployment, tmp_path):
    place = deployment("self_hosted").copy(tmp_path)
    place.configure("rediss://redis.example.com:6379")
    edit_conf(place, "%(here)s/supervisor.sock", "%(here)s/" + 100 * "x")
    done = place.project.run(supervise(place), seconds=30)
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if "System check" not in line]
    assert re.search(r"x{100}, as supervisord.conf names it, cannot be made: AF_UNIX path", line)


@pytest.mark.parametrize(("status", "expected"), [(2, 2), (1, 1), (3, 1)])
def test_what_the_check_refuses_ends_it_with_its_status(status, expected, deployment, tmp_path):
    """Status 2 means a refused setting, which no restart cures."""
    place = deployment("self_hosted").copy(tmp_path)
    place.configure("rediss://redis.example.com:6379")
    add(place, "manage.py", f"import sys; print('SOME_NAME is wrong.'); sys.exit({status})")
    done = place.project.run(supervise(place), seconds=30)
    assert done.returncode == expected
    assert done.stderr == "SOME_NAME is wrong.\n"


def made_for_root():
    missing = [name for name in ("setpriv", "unshare") if not shutil.which(name)]
    if os.getuid() or missing:
        pytest.skip("NOT TESTED: it takes root, setpriv and unshare to make a folder unwritable")


def code_of_another_user(path):
    """Return the words that start a command as root without the right to write everywhere."""
    for name in [path, *path.rglob("*")]:
        os.chown(name, 65534, 65534, follow_symlinks=False)
    return "setpriv --bounding-set=-dac_override,-dac_read_search,-fowner"


def read_only(*folders):
    """Return the words that start a command for which these folders are read-only."""
    mounts = [f"mount --bind {it} {it} && mount -o remount,bind,ro {it}" for it in folders]
    # `cd` gets below the mount.
    commands = [*mounts, f"cd {folders[0]}", 'exec "$@"']
    return f"unshare --mount bash -c '{' && '.join(commands)}' bash"


@pytest.fixture
def runtime_folder():
    """A folder with a short path, because a socket's path may have 107 characters at most."""
    with tempfile.TemporaryDirectory(prefix="t") as folder:
        yield Path(folder)


@pytest.mark.parametrize("unwritable", varied([code_of_another_user, read_only]))
def test_a_project_that_cannot_be_written_runs_and_supervisorctl_finds_it(
    unwritable, deployment, redis_server, certificates, running, tmp_path, runtime_folder
):
    made_for_root()
    server = redis_server(certificates.of_own)
    place = deployment("self_hosted").copy(tmp_path)
    path = place.project.path
    command = f"{unwritable(path)} {supervise(place)}"

    def start():
        return running(place.start(server.url(), command=command, TMPDIR=runtime_folder))

    def status(*options):
        """Return what `supervisorctl status` prints in a shell with nothing but a PATH."""
        own = ["env", "-i", f"PATH={place.project.venv / 'bin'}:/usr/bin:/bin"]
        line = [*own, "supervisorctl", *options, "status", "celery_worker"]
        return subprocess.run(line, cwd=path, capture_output=True, text=True).stdout

    service = start()
    service.wait_for_status("/readyz", 200, 60)
    assert not (path / "supervisor.sock").exists()
    assert "could not write pidfile" not in service.output()
    # The log says so, in one line.
    (line,) = re.findall(".* cannot be written, .*", service.output())
    found_by = re.search(r"`supervisorctl (-c \S+ -s unix://\S+)`", line)[1].split()
    wait_until(lambda: " RUNNING " in status(*found_by), 20, "supervisorctl says RUNNING")
    assert " RUNNING " not in status("-c", "supervisord.conf")
    link = re.search(r"`(ln -sfn \S+ \S+)`", line)[1].split()
    subprocess.run(link, check=True)
    assert " RUNNING " in status("-c", "supervisord.conf")
    (folder,) = runtime_folder.glob("supervise-*")
    assert (folder.stat().st_mode & 0o777, folder.stat().st_uid) == (0o700, os.getuid())
    assert set(service.stop(28).values()) == {0}
    assert list(folder.iterdir()) == []

    # With the link it is found, as the README says, and the log does not mention it.
    service = start()
    wait_until(lambda: " RUNNING " in status("-c", "supervisord.conf"), 40, "it says RUNNING")
    assert "cannot be written" not in service.output()
    assert set(service.stop(28).values()) == {0}


def test_a_machine_without_a_folder_to_write_to_is_refused(deployment, tmp_path):
    made_for_root()
    place = deployment("self_hosted").copy(tmp_path)
    place.configure("rediss://redis.example.com:6379")
    path = place.project.path
    start = read_only(path, "/var/tmp", "/tmp")
    done = place.project.run(f"{start} {supervise(place)}", seconds=30)
    assert done.returncode == 1
    line = "No folder for temporary files can be written: mount a tmpfs at /tmp.\n"
    assert done.stderr == line


def test_the_unit_of_the_readme_is_one_that_systemd_accepts(tmp_path):
    if not shutil.which("systemd-analyze"):
        pytest.skip("NOT TESTED: systemd-analyze is not on this machine")
    project = bake(tmp_path, redis_provider="self_hosted", deploy_target="server")
    readme = (project / "README.md").read_text()
    unit = textwrap.dedent(re.search(r"(?s)( {4}\[Unit\].*?WantedBy=\S+\n)", readme)[1])
    # The unit names these, which this machine does not have.
    unit = unit.replace("/srv/my_service/.venv/bin/python", sys.executable)
    unit = unit.replace("/srv/my_service", str(project)).replace("User=my_service", "User=root")

    def verify(text):
        path = tmp_path / "my_service.service"
        path.write_text(text)
        command = ["systemd-analyze", "verify", "--man=no", path]
        done = subprocess.run(command, capture_output=True, text=True)
        return [line for line in done.stderr.splitlines() if path.name in line]

    assert verify(unit) == []
    # The check must be able to fail.
    assert verify(unit.replace("KillMode=mixed", "KillMode=mixture"))
    for line in ("KillMode=mixed", "TimeoutStopSec=30", "Restart=on-failure"):
        assert line in unit
    assert "StandardOutput" not in unit


@pytest.mark.all
def test_plain_supervisord_runs_the_same_file(deployment, redis_server, certificates, running):
    server = redis_server(certificates.of_own)
    place = deployment("self_hosted")
    service = running(place.start(server.url(), command="supervisord -c supervisord.conf"))
    service.wait_for_status("/readyz", 200, 60)

    def status():
        return place.project.run("supervisorctl -c supervisord.conf status celery_worker").stdout

    wait_until(lambda: " RUNNING " in status(), 20, "supervisorctl says RUNNING")
    assert set(service.stop(28).values()) == {0}
    assert " RUNNING " not in status()


def queued(server, slug):
    """The next message of each priority's list, as kombu names them, where there is one."""
    lists = ["{" + slug + "}:celery" + step for step in ("", "\x06\x163", "\x06\x166", "\x06\x169")]
    return [message for name in lists if (message := server.command("LINDEX", name, 0))]


def test_a_task_that_a_stop_interrupts_goes_back_to_the_queue(
    deployment, redis_server, certificates, running, tmp_path
):
    server = redis_server(certificates.of_own)
    place = deployment("self_hosted").copy(tmp_path)
    (place.project.path / "authentication" / "tasks.py").write_text(textwrap.dedent(NAP).lstrip())
    service = running(place.start(server.url()))
    (program,) = service.programs.values()
    service.wait_for_status("/readyz", 200, 60)
    send = "from authentication.tasks import nap; nap.delay(30)"
    assert place.project.manage("shell", "-c", send).returncode == 0
    program.wait_for(r"Task authentication\.tasks\.nap\[\S+\] received", 20)
    assert queued(server, place.project.slug) == []

    began = time.monotonic()
    assert set(service.stop(28).values()) == {0}
    seconds = time.monotonic() - began
    assert 12 < seconds < 28, "a running task gets 12 s"
    assert not re.search(r"nap\[\S+\] succeeded", service.output())
    (message,) = queued(server, place.project.slug)
    assert '"task": "authentication.tasks.nap"' in message
