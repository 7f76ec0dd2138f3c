"""Reads the files that start this service, with the parsers of those who run them.

A file that is missing starts nothing, so you may delete those that your platform does not use.
"""

import io
import re
import signal
from dataclasses import dataclass
from typing import Any

import yaml
from django.conf import settings
from supervisor.options import ServerOptions

# Seconds from SIGTERM until your platform kills what still runs. Raise it together with the
# platform's own setting, such as TimeoutStopSec of systemd. In render.yaml each service says for
# itself how long Render waits (maxShutdownDelaySeconds).
STOP_GRACE = 30

# What Render takes where render.yaml says nothing, and the most that it grants.
RENDER_DELAY = 30
RENDER_LONGEST_DELAY = 300
RENDER_POLICY = "allkeys-lru"


@dataclass(frozen=True)
class Process:
    """A command that a platform or supervisord starts, and how it is stopped."""

    file: str
    name: str
    command: str
    stop_signal: signal.Signals
    seconds_to_stop: int  # from that signal until it is killed

    def __str__(self) -> str:
        return f"{self.name} in {self.file}"

    @property
    def is_worker(self) -> bool:
        words = self.command.split()
        return "worker" in words and any(word.endswith("celery") for word in words)

    @property
    def is_web(self) -> bool:
        return bool(re.search(r"\bgunicorn .*\bconfig\.wsgi\b", self.command))

    @property
    def is_supervisord(self) -> bool:
        return "operations.supervise" in self.command.split()

    @property
    def hands_back_its_tasks(self) -> bool:
        """Whether the stop signal begins Celery's soft shutdown. SIGTERM waits for all tasks."""
        if self.stop_signal == signal.SIGQUIT:
            return True
        return "REMAP_SIGTERM=SIGQUIT" in self.command.split()


def read(name: str) -> str | None:
    """Return the text of a file of this project, or None where it is not there."""
    path = settings.BASE_DIR / name
    return path.read_text("utf-8") if path.exists() else None


def all_processes() -> list[Process]:
    """Return what supervisord.conf, the Procfile and render.yaml start, except the releases."""
    supervised = [process for group in supervised_groups() for process in group]
    return [*supervised, *procfile_processes(), *blueprint_processes()]


def web_processes() -> list[Process]:
    return [process for process in all_processes() if process.is_web]


def worker_processes() -> list[Process]:
    return [process for process in all_processes() if process.is_worker]


def supervised_groups() -> list[list[Process]]:
    """Return the programs of supervisord.conf. Those of one group are stopped at the same time."""
    if read("supervisord.conf") is None:
        return []
    options = ServerOptions()
    options.stderr = io.StringIO()  # supervisor explains itself there, and exits
    try:
        options.realize(["-c", str(settings.BASE_DIR / "supervisord.conf")], doc="")
    except SystemExit:
        reason, _, _ = options.stderr.getvalue().partition("For help")
        reason = " ".join(reason.split())
        raise AssertionError(f"supervisor cannot read supervisord.conf. {reason}") from None
    return [
        [
            Process(
                file="supervisord.conf",
                name=program.name,
                command=program.command,
                stop_signal=signal.Signals(program.stopsignal),
                seconds_to_stop=program.stopwaitsecs,
            )
            for program in group.process_configs
        ]
        for group in options.process_group_configs
    ]


def procfile_processes() -> list[Process]:
    """Return the lines of the Procfile, except what runs before a deploy and ends by itself."""
    lines = re.findall(r"(?m)^([\w-]+):\s*(.+)$", read("Procfile") or "")
    return [
        Process("Procfile", name, command, signal.SIGTERM, STOP_GRACE)
        for name, command in lines
        if name not in ("release", "postdeploy")
    ]


def blueprint() -> dict[str, Any]:
    """Return render.yaml as Render reads it."""
    try:
        content = yaml.safe_load(read("render.yaml") or "{}")
    except yaml.YAMLError as error:
        raise AssertionError(f"render.yaml cannot be read. {error}") from None
    assert isinstance(content, dict), "render.yaml holds no mapping with `services:`."
    return content


def blueprint_processes() -> list[Process]:
    """Return the services of render.yaml that run a command."""
    return [
        Process(
            file="render.yaml",
            name=service["name"],
            command=service["startCommand"],
            stop_signal=signal.SIGTERM,
            seconds_to_stop=render_delay(service),
        )
        for service in blueprint().get("services", [])
        if "startCommand" in service
    ]


def render_delay(service: dict[str, Any]) -> int:
    """Return how many seconds Render waits for this service to stop."""
    return min(service.get("maxShutdownDelaySeconds", RENDER_DELAY), RENDER_LONGEST_DELAY)


def queues_in_blueprint(url_name: str) -> list[dict[str, Any]]:
    """Return the Redis services of render.yaml that hold the queue.

    `url_name` is the variable of the Redis URL. CELERY_BROKER_URL wins over it, as in settings.py.
    A queue that is elsewhere, or that the dashboard names, is not in this file.
    """
    services = blueprint().get("services", [])
    names = set()
    for service in services:
        variables = blueprint_variables(service)
        broker = variables.get("CELERY_BROKER_URL") or variables.get(url_name) or {}
        if "fromService" in broker:
            names.add(broker["fromService"]["name"])
    return [service for service in services if service["name"] in names]


def blueprint_variables(service: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the variables of a service by their names, with those of its groups."""
    groups = {group["name"]: group["envVars"] for group in blueprint().get("envVarGroups", [])}
    variables: dict[str, dict[str, Any]] = {}
    for entry in service.get("envVars", []):
        entries = groups.get(entry["fromGroup"], []) if "fromGroup" in entry else [entry]
        variables |= {variable["key"]: variable for variable in entries}
    return variables
