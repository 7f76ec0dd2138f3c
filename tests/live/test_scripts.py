"""What a developer runs in a baked project: its own tests, script/test and script/dev."""

import os
import re
import shutil
import signal
import socket
import stat
import time
from contextlib import contextmanager, suppress

import pexpect
import psutil
import pytest

from harness.browser import Browser
from harness.deployments import ONE_OF_EACH_TARGET
from harness.leftovers import descendants
from harness.processes import Program, free_port, processes, run, wait_until
from harness.redis_server import RedisServer
from harness.service import Project, Service, bake

# One process of pytest-xdist, since the tests of script/dev share one installed project.
pytestmark = pytest.mark.xdist_group("scripts")
TESTING = {"DEBUG": "true", "LOG_LEVEL": "ERROR"}
REDIS = ("redis-server", "valkey-server", "redis-check-rdb")  # which may be a name of the first
OWN_URL = r"^REDIS_URL=redis://127\.0\.0\.1:(16[4-8]\d\d)/0$"  # in .env


def a_developers(**more):
    """Return an environment with nothing of the service in it."""
    return {"PATH": os.environ["PATH"], "LANG": "C.UTF-8"} | Project.machine() | more


def path_without(folder, *names):
    """Return a PATH without these programs: one folder of links to all others."""
    folder.mkdir()
    for directory in filter(os.path.isdir, os.environ["PATH"].split(os.pathsep)):
        for entry in os.scandir(directory):
            link = folder / entry.name
            if entry.name not in names and not link.is_symlink():
                link.symlink_to(entry.path)
    return str(folder)


@pytest.mark.all
@pytest.mark.parametrize("name", ONE_OF_EACH_TARGET)
def test_the_projects_own_tests_pass(name, deployment, developers):
    project = developers(deployment(name).project)
    project.settings = TESTING
    done = project.manage("test", seconds=400)
    assert done.returncode == 0, done.stderr
    assert int(re.search(r"^Ran (\d+) tests", done.stderr, re.MULTILINE)[1]) > 30


@pytest.mark.all
def test_the_projects_own_tests_can_fail(deployment, developers, tmp_path):
    project = developers(deployment("self_hosted").copy(tmp_path).project)
    project.settings = TESTING
    conf = project.path / "supervisord.conf"
    conf.write_text(conf.read_text().replace("stopwaitsecs=18", "stopwaitsecs=60"))
    done = project.manage("test", "tests.test_deployment.StopTests")
    assert done.returncode == 1
    assert "FAILED (failures=1)" in done.stderr


@pytest.mark.all
def test_script_test_from_nothing(tmp_path):
    path = bake(
        tmp_path, project_name="Zoo", redis_provider="self_hosted", deploy_target="render_services"
    )
    done = run(["./script/test"], cwd=path, env=a_developers(), seconds=400)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (path / ".venv").is_dir()
    assert "All checks passed!" in done.stdout
    assert re.search(r"^OK", done.stderr, re.MULTILINE)

    with (path / "authentication" / "views.py").open("a") as file:
        file.write("import os\n")
    done = run(["./script/test"], cwd=path, env=a_developers(), seconds=60)
    assert done.returncode != 0
    assert "F401" in done.stdout


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A baked project, as a developer has it after git clone."""
    return bake(tmp_path_factory.mktemp("development"))


@pytest.fixture
def dev(project, running, tmp_path):
    """dev(**environment) -> `script/dev PORT` as a Service that is ready, with its `program`.

    After the test all of it is ended, because each of its programs has a session of its own.
    """
    started = []

    def start(**environment):
        port = free_port()
        command, env = ["./script/dev", str(port)], a_developers(**environment)
        log = tmp_path / f"log-{len(started)}"
        program = Program("dev", command, cwd=project, env=env, log=log)
        started.append(program)
        service = running(Service(Project(project, host=f"localhost:{port}"), port, {"": program}))
        service.program = program
        service.wait_for_status("/readyz", 200, 400)
        return service

    yield start
    for program in started:
        if program.exit_code() is None:
            program.stop(40)


@pytest.fixture
def command(project, tmp_path):
    """command(*words, **environment) -> a running Program, which ends with the test."""
    started = []

    def start(*words, **environment):
        log = tmp_path / f"log-{len(started)}"
        env = a_developers(**environment)
        program = Program(words[0], [*map(str, words)], cwd=project, env=env, log=log)
        started.append(program)
        return program

    yield start
    for program in started:
        if program.exit_code() is None:
            program.stop(40)


@contextmanager
def kept(path):
    """Put a file back, or remove it again, after the test has changed it."""
    before = path.read_bytes() if path.exists() else None
    try:
        yield path
    finally:
        if before is None:
            path.unlink(missing_ok=True)
        else:
            path.write_bytes(before)


def interrupt(program):
    """Press Ctrl-C; return the exit code and the processes that are left over."""
    started = descendants(program.pid)
    assert len(started) >= 4, "Redis, web, worker and beat at least"
    # The signal goes to the foreground process group, as from a terminal.
    os.killpg(program.pid, signal.SIGINT)
    code = program.wait(40)
    return code, set(started) & set(processes())


def doctor(project):
    """Return the exit status of the doctor in a second terminal, as in the README."""
    line = ". .venv/bin/activate && python manage.py doctor"
    done = run(["bash", "-c", line], cwd=project, env=a_developers(), seconds=60)
    assert done.stdout, done.stderr
    return done.returncode


def servers(program):
    """Return the paths of the Redis servers among its children."""
    paths = {psutil.Process(pid).exe() for pid in descendants(program.pid)}
    return {path for path in paths if os.path.basename(path) in REDIS}


def starts(program, name):
    return program.output().count(f"Starting {name}.")


def test_script_dev_from_nothing(project, dev, tmp_path):
    assert not (project / ".env").exists()
    assert not (project / ".venv").exists()
    service = dev()
    program = service.program
    dotenv = project / ".env"
    assert stat.S_IMODE(dotenv.stat().st_mode) == 0o600
    assert re.search(r"^SECRET_KEY=\S{50,}$", dotenv.read_text(), re.MULTILINE)

    assert re.search(OWN_URL, dotenv.read_text(), re.MULTILINE)
    assert doctor(project) == 0

    # Each line begins with its program and appears at once, although this is not a terminal.
    program.wait_for(r"^web    \| Starting development server at ", 5)
    program.wait_for(r"^worker \| .* celery@\S+ ready\.$", 5)
    program.wait_for(r"^beat   \| .* Starting\.\.\.$", 5)
    assert "\x1b" not in program.output()

    browser = Browser(service.port, service.project.host, https=False)
    assert browser.register("ada", "ada@example.com", "correct horse 7").url == "/accounts/login/"
    link = program.wait_for(r"http://\S+/accounts/verify/\S+", 30).group()
    assert browser.post(link).url == "/accounts/login/"
    assert browser.log_in("ada", "correct horse 7")

    def workers():
        return {pid for pid, text in descendants(program.pid).items() if " worker " in f"{text} "}

    old = workers()
    os.utime(project / "authentication" / "views.py")
    wait_until(lambda: workers() and not old & workers(), 30, "another worker after a change")
    program.wait_for(r"(?s)celery@\S+ ready\..*celery@\S+ ready\.", 30)
    service.wait_for_status("/readyz", 200, 30)

    # This looks like a part of the service, and is not.
    bystander = Program(
        "bystander",
        [
            "bash",
            "-c",
            f"exec -a 'celery -A {project.name} worker manage.py redis-server' sleep 99",
        ],
        cwd=project,
        env=a_developers(),
        log=tmp_path / "bystander",
    )
    try:
        assert interrupt(program) == (0, set())
        assert bystander.exit_code() is None
    finally:
        bystander.kill()


@pytest.mark.all
def test_script_dev_without_a_redis_on_the_machine(project, dev, command, tmp_path):
    """The developer's own .env is kept, and the server is the embedded one."""
    kept_lines = "# mine\nDEBUG=true\nSECRET_KEY=my-own"
    dotenv = project / ".env"
    dotenv.write_text(kept_lines)
    service = dev(PATH=path_without(tmp_path / "bin", *REDIS))
    text = dotenv.read_text()
    assert text.startswith(kept_lines + "\n")
    port = int(re.search(OWN_URL, text, re.MULTILINE)[1])
    (server,) = servers(service.program)
    assert server.startswith(str(project / ".venv"))

    # A second script/dev, or another service on the same port, cannot take this Redis.
    second = command("./script/dev", free_port())
    assert second.wait(40) == 1
    assert f"Port {port}, where REDIS_URL puts the Redis of this service, is in use." in (
        second.output()
    )
    assert "Starting" not in second.output()
    assert doctor(project) == 0
    assert interrupt(service.program) == (0, set())
    assert dotenv.read_text() == text
    assert doctor(project) == 1

    service = dev()
    assert dotenv.read_text() == text
    assert doctor(project) == 0
    assert interrupt(service.program) == (0, set())


@pytest.mark.all
def test_script_dev_fills_the_empty_line_of_the_example(project, dev):
    dotenv = project / ".env"
    with kept(dotenv):
        shutil.copy(project / ".env.example", dotenv)
        before = dotenv.read_text().replace("DEBUG=false", "DEBUG=true")
        dotenv.write_text(before)
        service = dev()
        text = dotenv.read_text()
        assert [line for line in before.splitlines() if line not in text.splitlines()] == [
            "REDIS_URL="
        ]
        assert re.search(OWN_URL, text, re.MULTILINE)
        assert doctor(project) == 0
        assert interrupt(service.program) == (0, set())


def test_script_dev_uses_the_redis_that_is_set(project, dev):
    dotenv = project / ".env"
    with RedisServer() as server, kept(dotenv):
        dotenv.write_text(f"DEBUG=true\nSECRET_KEY=my-own\nREDIS_URL={server.url()}\n")
        before = dotenv.read_text()
        service = dev()
        assert dotenv.read_text() == before
        assert servers(service.program) == set()
        assert doctor(project) == 0
        os.killpg(service.program.pid, signal.SIGINT)
        assert service.program.wait(40) == 0


@pytest.mark.all
def test_script_dev_recovers_from_a_syntax_error(project, dev):
    service = dev()
    program = service.program
    time.sleep(3)  # runserver may first look at the files after its first answer.
    for name in ("config/settings.py", "authentication/email_utils.py"):
        with kept(project / name) as path:
            good = path.read_text()
            ended = len(re.findall("worker has ended", program.output()))
            path.write_text(good + "\ndef broken(:\n")
            # Each program that ended is named in a sentence.
            wait_until(
                lambda ended=ended: (
                    program.output().count("worker has ended with status 1") > ended
                ),
                30,
                "the worker has ended",
            )
            if name == "config/settings.py":
                program.wait_for("web has ended with status 1: .* when you save a file", 30)
                program.wait_for("beat has ended with status 1: .* when you save a file", 30)
            ready = program.output().count(" ready.")
            path.write_text(good)
            wait_until(
                lambda ready=ready: program.output().count(" ready.") > ready, 30, "a new worker"
            )
        service.wait_for_status("/readyz", 200, 30)
        # That the file has its old text again is one more save, at which beat starts anew.
        wait_until(lambda: " beat" in " ".join(descendants(program.pid).values()), 30, "a new beat")
    assert interrupt(program) == (0, set())


@pytest.mark.all
def test_what_counts_as_a_change(project, dev):
    service = dev()
    program = service.program
    folder = project / "authentication"
    made = project / "shop" / "models.py"

    def symlink(path):
        path.symlink_to("somebody@machine.1:2")

    changes = {
        "a new file": lambda: (folder / "new.py").write_text("x = 1\n"),
        "a deleted file": (folder / "new.py").unlink,
        "a template": lambda: os.utime(project / "templates" / "home.html"),
        "a new folder": lambda: made.parent.mkdir(),
        "a file in it": lambda: made.write_text("x = 1\n"),
        "the folder is gone": lambda: shutil.rmtree(made.parent),
    }
    no_changes = {
        "a database": lambda: os.utime(project / "db.sqlite3"),
        "a journal": lambda: (project / "authentication" / "db.sqlite3-wal").write_text(""),
        "bytecode": lambda: (folder / "__pycache__" / "views.py").write_text(""),
        "vim's": lambda: (folder / ".views.py.swp").write_text(""),
        "vim's test": lambda: (folder / "4913").write_text(""),
        "a backup": lambda: (folder / "views.py~").write_text(""),
        "emacs' lock": lambda: symlink(folder / ".#views.py"),
        "emacs' copy": lambda: (folder / "#views.py#").write_text(""),
        "flycheck's": lambda: (folder / "flycheck_views.py").write_text(""),
        "PyCharm's": lambda: (folder / "views.py___jb_tmp___").write_text(""),
        ".venv": lambda: (project / ".venv" / "views.py").write_text(""),
        "a log": lambda: (folder / "debug.log").write_text(""),
    }
    (folder / "__pycache__").mkdir(exist_ok=True)
    for what, change in changes.items():
        before = starts(program, "worker"), starts(program, "beat")
        change()
        wait_until(
            lambda before=before: (
                starts(program, "worker") > before[0] and starts(program, "beat") > before[1]
            ),
            20,
            what,
        )
        time.sleep(1)  # A change of two files at once restarts once.
    before = starts(program, "worker")
    for change in no_changes.values():
        change()
    time.sleep(4)
    assert starts(program, "worker") == before
    assert starts(program, "web") == 1
    assert interrupt(program) == (0, set())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_nothing_behind(dev, number):
    program = dev().program
    started = descendants(program.pid)
    os.kill(program.pid, number)
    assert program.wait(40) == 0
    assert set(started) & set(processes()) == set()


def test_a_breakpoint_and_a_closed_terminal(project, command):
    port = free_port()
    with kept(project / "config" / "urls.py") as path:
        path.write_text(
            path.read_text()
            + "\ndef stop(request):\n    found = 41\n    breakpoint()\n"
            + "urlpatterns.append(path('stop/', stop))\n"
        )
        child = pexpect.spawn(
            str(project / "script" / "dev"),
            [str(port)],
            cwd=str(project),
            env=a_developers(TERM="xterm-256color"),
            timeout=400,  # seconds: it may be the first, which makes .venv
            encoding="utf-8",
        )
        try:
            child.expect("Starting development server")
            child.expect_exact("\x1b[")  # colours, on a terminal
            wait_until(lambda: answers(port), 30, "the web server answers")
            command("python3", "-c", f"from urllib.request import *; urlopen('{at(port)}stop/')")
            child.expect_exact("(Pdb) ")
            child.sendline("p found + 1")
            child.expect_exact("42")
            started = descendants(child.pid)
            assert len(started) >= 4
        finally:
            # The terminal is closed. pexpect cannot wait for the end of what ran in it.
            with suppress(pexpect.ExceptionPexpect):
                child.close(force=False)
        wait_until(lambda: not child.isalive(), 40, "the end of script/dev")
        assert set(started) & set(processes()) == set()


@pytest.mark.all
def test_an_output_that_nobody_reads_any_more(project, command):
    reader = command("bash", "-c", f"./script/dev {free_port()} | head -n 3")
    assert reader.wait(40) == 0
    assert reader.family() == {}


@pytest.mark.all
@pytest.mark.parametrize("line", ["Starting redis", "Starting web", "Starting beat"])
def test_ctrl_c_while_it_starts(command, line):
    program = command("./script/dev", free_port())
    program.wait_for(line, 40)
    os.killpg(program.pid, signal.SIGINT)
    assert program.wait(40) == 0
    assert "Traceback" not in program.output()


def test_a_port_that_is_in_use(command):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        program = command("./script/dev", port)
        assert program.wait(40) == 1
    assert f"Port {port} is in use by another program: end that one, or" in program.output()
    assert "Starting" not in program.output()
    program = command("./script/dev", "somewhere")
    assert program.wait(40) == 1
    assert "somewhere is not a port or ADDRESS:PORT" in program.output()


def test_a_refused_setting_is_told_of_once(project, command):
    refused = {"REDIS_CERT_REQS": "perhaps"}
    program = command("./script/dev", free_port(), **refused)
    check = command(".venv/bin/python", "manage.py", "check", **refused)
    assert program.wait(40) == check.wait(40) != 0
    assert program.output().count("REDIS_CERT_REQS is not one of") == 1
    assert "Starting" not in program.output()


def test_redis_ends(dev):
    program = dev().program
    started = descendants(program.pid)
    (server,) = [pid for pid in started if psutil.Process(pid).exe() in servers(program)]
    os.kill(server, signal.SIGKILL)
    assert program.wait(40) == 1
    assert "redis was ended by SIGKILL: see its last lines for the reason." in program.output()
    assert set(started) & set(processes()) == set()


@pytest.mark.all
def test_programs_of_the_owner(project, command):
    """A program is anything that a shell runs. Status 75 asks for a new start (watchdog.py)."""
    with kept(project / "Procfile.dev") as path:
        path.write_text(
            "css: echo $ADDRESS && printf 'no end of line'; sleep 99 & sleep 99\n"
            "again: sleep 1; exit 75\n"
        )
        port = free_port()
        program = command("./script/dev", port)
        program.wait_for(rf"^css   \| {port}$", 40)
        program.wait_for(r"^css   \| no end of line$", 5)
        wait_until(lambda: starts(program, "again") > 2, 20, "started again and again")
        started = descendants(program.pid)
        os.killpg(program.pid, signal.SIGINT)
        assert program.wait(40) == 0
        assert set(started) & set(processes()) == set()

        for text, sentence in {
            "web python\n": "Procfile.dev, line 1: write NAME: COMMAND.",
            "web: a\n\nweb: b\n": "Procfile.dev, line 3: there is a web already.",
        }.items():
            path.write_text(text)
            program = command("./script/dev", port)
            assert program.wait(40) == 1
            assert sentence in program.output()


def at(port):
    return f"http://127.0.0.1:{port}/"


def answers(port):
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0
