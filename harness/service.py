"""A baked service, built and started as its own files say."""

import base64
import http.client
import json
import os
import re
import secrets
import shutil
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from harness.answers import ROOT, check_keys

from .processes import Failed, Program, free_port, run
from .tallies import proven

OUTSIDE_NAME = "service.example"

# Only what package installation needs is passed on from the machine's environment.
PASSED_ON = re.compile(r"(PIP_|UV_|SSL_CERT_|REQUESTS_CA_|HTTPS?_PROXY|NO_PROXY|PYENV_ROOT$)", re.I)


def bake(folder, **answers):
    """Bake into `folder` with the real command line; return the new project's path.

    Unknown questions are refused here, because cookiecutter ignores them.
    """
    check_keys(answers)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    before = set(folder.iterdir())
    with tempfile.TemporaryDirectory() as home:
        # The user's own configuration neither changes the bake nor is changed by it.
        config = Path(home, "config.yaml")
        config.write_text(f"cookiecutters_dir: {home}/templates\nreplay_dir: {home}/replay\n")
        command = [sys.executable, "-m", "cookiecutter", "--no-input"]
        command += ["--config-file", str(config), "--output-dir", str(folder), str(ROOT)]
        done = run(
            command + [f"{name}={value}" for name, value in answers.items()],
            cwd=folder,
            env=os.environ | {"HOME": home, "TMPDIR": home, "PYTHONDONTWRITEBYTECODE": "1"},
            seconds=60,
        )
    if done.returncode:
        raise Failed(f"the bake failed:\n{done.stderr[-2000:]}{done.stdout[-2000:]}")
    (project,) = set(folder.iterdir()) - before
    return project


@dataclass
class Commands:
    """What a platform runs: one build and pre-deploy command, then every process of `start`."""

    build: str
    predeploy: str
    start: dict[str, str]
    environment: dict[str, dict[str, str]] = field(default_factory=dict)

    def first_environment(self):
        """The environment of the first process, which build and pre-deploy have, too."""
        return self.environment.get(next(iter(self.start)), {})


class Project:
    """A baked project with a virtual environment beside it.

    `settings` is the environment that every command gets, on top of PATH, HOME and the like. `host`
    is the service's public name.
    """

    def __init__(self, path, settings=None, venv=None, host=OUTSIDE_NAME):
        self.path = Path(path)
        self.slug = self.path.name
        self.venv = Path(venv) if venv else self.path.with_name(f"{self.slug}-venv")
        self.settings = dict(settings or {})
        self.host = host
        self.home = self.path.with_name(f"{self.slug}-home")
        self.home.mkdir(exist_ok=True)

    @property
    def python(self):
        """The Python of the project's virtual environment."""
        return self.venv / "bin" / "python"

    def environment(self, *more):
        """Return a platform's environment: PATH and HOME, then `settings`, then `more` (dicts)."""
        values = {
            "PATH": f"{self.venv / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "VIRTUAL_ENV": str(self.venv),
            "HOME": str(self.home),
            "LANG": os.environ.get("LANG", "C.UTF-8"),
        }
        for settings in (self.settings, *more):
            values |= settings
        # The value None takes a variable away.
        return {name: str(value) for name, value in values.items() if value is not None}

    @staticmethod
    def machine():
        """Return what this machine's own environment says about the package index."""
        values = {name: text for name, text in os.environ.items() if PASSED_ON.match(name)}
        # With pip's cache and settings, ten builds download once.
        return values | {"HOME": str(Path.home())}

    def make_venv(self, python=sys.executable):
        """Make a virtual environment with nothing but pip in it, as a platform starts with."""
        command = [str(python), "-m", "venv", str(self.venv)]
        done = run(command, cwd="/", env=dict(os.environ), seconds=120)
        if done.returncode and (uv := shutil.which("uv")):
            # Debian's Python has no ensurepip unless python3-venv is installed.
            command = [uv, "venv", "--quiet", "--seed", "--clear", "--python", str(python)]
            done = run([*command, str(self.venv)], cwd="/", env=dict(os.environ), seconds=120)
        if done.returncode:
            raise Failed(f"{command} failed:\n{done.stdout}{done.stderr}")

    def run(self, command, *more, seconds=120):
        """Run a shell command line (a str) or a list of arguments; return the finished process."""
        arguments = ["bash", "-c", command] if isinstance(command, str) else command
        return run(arguments, cwd=self.path, env=self.environment(*more), seconds=seconds)

    def must(self, command, *more, seconds=120):
        """Do as `run()`. Raises Failed with the end of the output if the command fails."""
        done = self.run(command, *more, seconds=seconds)
        if done.returncode:
            text = (done.stdout + done.stderr)[-3000:]
            raise Failed(f"{command!r} ended with {done.returncode}:\n{text}")

    def manage(self, *arguments, env=None, seconds=120):
        """Run `python manage.py ...`; return the finished process."""
        return self.run([str(self.python), "manage.py", *arguments], env or {}, seconds=seconds)

    def build(self, commands):
        """Run the build command."""
        self.must(commands.build, self.machine(), commands.first_environment(), seconds=900)

    def predeploy(self, commands):
        """Run the pre-deploy command."""
        self.must(commands.predeploy, commands.first_environment(), seconds=120)

    def doctor(self, *arguments, env=None):
        """Run `manage.py doctor --json`; return (exit code, {probe name: probe}).

        Raises Failed unless the doctor says what to do about each warning and failure.
        """
        done = self.manage("doctor", "--json", *arguments, env=env)
        try:
            report = json.loads(done.stdout)
        except ValueError:
            raise Failed(f"doctor printed no JSON:\n{done.stdout}{done.stderr}") from None
        for probe in report["probes"]:
            if bool(probe["fix"]) != (probe["state"] in ("warn", "fail")):
                raise Failed(f"doctor does not say what to do, or needs not: {probe}")
        return done.returncode, {probe["name"]: probe for probe in report["probes"]}

    def start(self, commands, *more, port=None, logs=None):
        """Start every process of `commands`; return the running `Service`."""
        port = port or free_port()
        logs = Path(logs or self.path.with_name(f"{self.slug}-logs-{time.time_ns()}"))
        programs = {}
        with ExitStack() as started:
            for name, command in commands.start.items():
                programs[name] = Program(
                    name,
                    # exec, as on platforms: a signal must reach the program and not a shell.
                    ["bash", "-c", f"exec {command}"],
                    cwd=self.path,
                    env=self.environment(
                        commands.environment.get(name, {}), {"PORT": str(port)}, *more
                    ),
                    log=logs / f"{name}.log",
                )
                started.callback(programs[name].kill)
            started.pop_all()
        proven(services_started=1)
        return Service(self, port, programs)


class Service:
    """The running processes of one project; a context manager that ends them."""

    def __init__(self, project, port, programs):
        self.project = project
        self.port = port
        self.programs = programs

    def output(self):
        """Return what all of the processes have written."""
        return "".join(program.output() for program in self.programs.values())

    def family(self):
        """Return {pid: command} of every living process of all programs."""
        return {
            pid: command
            for program in self.programs.values()
            for pid, command in program.family().items()
        }

    def status(self, path, seconds=10):
        """Return (HTTP status, text, seconds it took) of one page, asked for as a platform does."""
        began = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=seconds)
        try:
            connection.request("GET", path, headers={"Host": self.project.host})
            answer = connection.getresponse()
            text = answer.read().decode(errors="replace")
            return answer.status, text, time.monotonic() - began
        finally:
            connection.close()

    def wait_for_status(self, path, status, seconds):
        """Wait until `path` answers with `status`. Raises Failed if not, or if a program ends."""
        end = time.monotonic() + seconds
        last = "no answer"
        while time.monotonic() < end:
            self.check_alive()
            try:
                code, text, _ = self.status(path)
                if code == status:
                    return text
                last = f"{code} {text.strip()[:500]}"
            except OSError as error:
                last = str(error)
            time.sleep(0.3)
        raise Failed(
            f"{path} was not {status} within {seconds} seconds, but: {last}\n{self.tail()}"
        )

    def check_alive(self):
        """Raise Failed if a program has ended."""
        for program in self.programs.values():
            if (code := program.exit_code()) is not None:
                raise program.failed(f"ended with {code}")

    def tail(self, count=15):
        """Return the last lines of every program, for people."""
        return "\n".join(f"--- {p.name}\n{p.last_lines(count)}" for p in self.programs.values())

    def task_pid(self, task, seconds=60):
        """Wait until a worker says that `task` succeeded; return the id of its process."""
        line = rf"\[(\d+)\] \S+: Task {re.escape(task)}\[\S+\] succeeded"
        end = time.monotonic() + seconds
        while not (found := re.search(line, self.output())):
            self.check_alive()
            if time.monotonic() > end:
                raise Failed(f"no worker ran {task} within {seconds} seconds\n{self.tail()}")
            time.sleep(0.2)
        return int(found.group(1))

    def stop(self, seconds=28):
        """Send SIGTERM to every program at once; return {name: exit code}. No process may stay."""
        for program in self.programs.values():
            program.terminate()
        codes, problems = {}, []
        end = time.monotonic() + seconds
        for name, program in self.programs.items():
            try:
                codes[name] = program.stop(max(1, end - time.monotonic()))
            except Failed as error:
                problems.append(str(error))
        if problems:
            raise Failed("\n".join(problems))
        return codes

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is None:
            self.stop()
        else:
            for program in self.programs.values():
                program.kill()


def commands_of(project, target, given):
    """Return the `Commands` that the target's own files tell a platform to run.

    `given` holds what the platform or its user fills in: DATABASE_URL, the Redis URL under the name
    that the file uses, and so on.
    """
    readers = {
        "render": _render_yaml,
        "render_services": _render_yaml,
        "procfile": _procfile,
        "server": _readme,
    }
    return readers[target](project, given)


def _render_yaml(project, given):
    import yaml

    return of_blueprint(yaml.safe_load((project.path / "render.yaml").read_text()), given)


def of_blueprint(blueprint, given):
    """Do as `commands_of()` with what stands in a render.yaml."""
    groups = {group["name"]: group["envVars"] for group in blueprint.get("envVarGroups", [])}
    # All who share a group have the same generated value.
    made: dict[tuple[str, str], str] = {}
    builds, predeploys, start = [], [], {}
    environment: dict[str, dict[str, str]] = {}
    for service in blueprint["services"]:
        if service["type"] in ("keyvalue", "redis"):
            continue
        name = service["name"]
        builds.append(service["buildCommand"])
        predeploys += [service["preDeployCommand"]] if "preDeployCommand" in service else []
        start[name] = service["startCommand"]
        environment[name] = {}
        for entry in service.get("envVars", []):
            group = entry.get("fromGroup")
            for variable in groups[group] if group else [entry]:
                owner = group or name
                value = _render_value(variable, given, made, owner)
                if value is not None:
                    environment[name][variable["key"]] = value
    if len(set(builds)) != 1 or len(predeploys) != 1:
        raise Failed(f"render.yaml: builds {builds}, pre-deploy commands {predeploys}")
    return Commands(builds[0], predeploys[0], start, environment)


def _render_value(variable, given, made, owner):
    key = variable["key"]
    if "value" in variable:
        return str(variable["value"])
    if variable.get("generateValue"):
        return made.setdefault((owner, key), base64.b64encode(secrets.token_bytes(32)).decode())
    if variable.get("sync") is False:
        return given.get(key)
    source = variable.get("fromDatabase") or variable.get("fromService")
    if not source or source.get("property") != "connectionString":
        raise Failed(f"render.yaml: do not know where {variable} comes from")
    if key not in given:
        raise Failed(f"render.yaml asks for {key}, the test gave {sorted(given)}")
    return given[key]


BUILD = (
    "pip install --require-hashes -r requirements.txt && python manage.py collectstatic --noinput"
)


def _procfile(project, given):
    lines = dict(
        line.split(": ", 1) for line in (project.path / "Procfile").read_text().splitlines() if line
    )
    return Commands(
        # A buildpack runs this by itself when it sees requirements.txt and manage.py.
        BUILD,
        lines.pop("release"),
        lines,
        {name: dict(given) for name in lines},
    )


def _readme(project, given):
    start = "python -m operations.supervise -c supervisord.conf"
    commands = Commands(
        BUILD, "python manage.py migrate --noinput", {"service": start}, {"service": dict(given)}
    )
    readme = (project.path / "README.md").read_text()
    for command in [*BUILD.split(" && "), commands.predeploy, start]:
        if command not in readme:
            raise Failed(f"the project's README does not tell to run {command!r}")
    return commands
