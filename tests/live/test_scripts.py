"""What a developer runs in a baked project: its own tests, script/test and script/dev."""

import os
import re
import signal
import stat

import psutil
import pytest

from harness.browser import Browser
from harness.deployments import ONE_OF_EACH_TARGET
from harness.leftovers import descendants
from harness.processes import Program, free_port, processes, run, wait_until
from harness.service import Project, Service, bake

pytestmark = pytest.mark.live
TESTING = {"DEBUG": "true", "LOG_LEVEL": "ERROR"}


def a_developers(**more):
    """An environment with nothing of the service in it."""
    return {"PATH": os.environ["PATH"], "LANG": "C.UTF-8"} | Project.machine() | more


def path_without(folder, *names):
    """A PATH on which these programs are hidden: one folder of links to all others."""
    folder.mkdir()
    for directory in filter(os.path.isdir, os.environ["PATH"].split(os.pathsep)):
        for entry in os.scandir(directory):
            link = folder / entry.name
            if entry.name not in names and not link.is_symlink():
                link.symlink_to(entry.path)
    return str(folder)


@pytest.mark.parametrize("name", ONE_OF_EACH_TARGET)
def test_the_projects_own_tests_pass(name, deployment, developers):
    project = developers(deployment(name).project)
    project.settings = TESTING
    done = project.manage("test")
    assert done.returncode == 0, done.stderr
    assert int(re.search(r"^Ran (\d+) tests", done.stderr, re.MULTILINE)[1]) > 30


def test_the_projects_own_tests_can_fail(deployment, developers, tmp_path):
    project = developers(deployment("self_hosted").copy(tmp_path).project)
    project.settings = TESTING
    conf = project.path / "supervisord.conf"
    conf.write_text(conf.read_text().replace("stopwaitsecs=18", "stopwaitsecs=60"))
    done = project.manage("test", "tests.test_deployment.StopTests")
    assert done.returncode == 1
    assert "FAILED (failures=1)" in done.stderr


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
    """A baked project as a developer has it after git clone."""
    return bake(tmp_path_factory.mktemp("development"))


@pytest.fixture
def dev(project, running, tmp_path):
    """dev(**environment) -> `script/dev PORT` as a Service that is ready, with its `program`."""

    def start(**environment):
        port = free_port()
        command, env = ["./script/dev", str(port)], a_developers(**environment)
        program = Program("dev", command, cwd=project, env=env, log=tmp_path / "log")
        service = running(Service(Project(project, host=f"localhost:{port}"), port, {"": program}))
        service.program = program
        service.wait_for_status("/readyz", 200, 400)
        return service

    return start


def interrupt(program):
    """Ctrl-C; return the exit code and what is left of the processes it had started."""
    started = descendants(program.pid)
    assert len(started) >= 4, "Redis, web, worker and beat at least"
    # To the foreground process group, as a terminal does.
    os.killpg(program.pid, signal.SIGINT)
    code = program.wait(40)
    return code, set(started) & set(processes())


def test_script_dev_from_nothing(project, dev, tmp_path):
    assert not (project / ".env").exists()
    assert not (project / ".venv").exists()
    service = dev(PYTHONUNBUFFERED="1")  # as in a terminal
    program = service.program
    dotenv = project / ".env"
    assert stat.S_IMODE(dotenv.stat().st_mode) == 0o600
    assert re.search(r"^SECRET_KEY=\S{50,}$", dotenv.read_text(), re.MULTILINE)

    # As the README says, in a second terminal.
    line = program.wait_for(r"^CELERY_BROKER_URL=redis://127\.0\.0\.1:\d+/0$", 5).group()
    for export, code in {f"export {line}": 0, ":": 1}.items():
        doctor = f". .venv/bin/activate && {export} && python manage.py doctor"
        done = run(["bash", "-c", doctor], cwd=project, env=a_developers(), seconds=60)
        assert done.returncode == code, done.stdout + done.stderr

    browser = Browser(service.port, service.project.host, https=False)
    assert browser.register("ada", "ada@example.com", "correct horse 7").url == "/accounts/login/"
    link = program.wait_for(r"http://\S+/accounts/verify/\S+", 30).group()
    assert browser.post(link).url == "/accounts/login/"
    assert browser.log_in("ada", "correct horse 7")

    def workers():
        return {pid for pid, text in descendants(program.pid).items() if " worker " in text}

    old = workers()
    os.utime(project / "authentication" / "views.py")
    wait_until(lambda: workers() and not old & workers(), 30, "another worker after a change")
    program.wait_for(r"(?s)celery@\S+ ready\..*celery@\S+ ready\.", 30)
    service.wait_for_status("/readyz", 200, 30)

    # Looks like a part of it, and is none.
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


def test_script_dev_without_a_redis_on_the_machine(project, dev, tmp_path):
    """Its .env is the developer's, and is kept; the server is the embedded one."""
    kept = "# mine\nDEBUG=true\nSECRET_KEY=my-own\n"
    (project / ".env").write_text(kept)
    hidden = ("redis-server", "valkey-server")
    service = dev(PATH=path_without(tmp_path / "bin", *hidden))
    assert (project / ".env").read_text() == kept
    programs = {psutil.Process(pid).exe() for pid in descendants(service.program.pid)}
    (server,) = [path for path in programs if os.path.basename(path) in hidden]
    assert server.startswith(str(project / ".venv"))
    assert interrupt(service.program) == (0, set())
