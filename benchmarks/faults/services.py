"""The two services: how each is made, and the environment that its platform gives it."""

import re
import secrets
import shutil
from pathlib import Path

from harness.processes import Failed
from harness.service import OUTSIDE_NAME, Commands, Project, bake, commands_of

BENCHMARKS = Path(__file__).resolve().parent.parent
OURS, PLAIN = "this service", "plain Celery"
NAMES = (PLAIN, OURS)
LEFT_BEHIND = shutil.ignore_patterns("supervisor*.sock", "supervisord.pid", "__pycache__")

SETTINGS = '\nINSTALLED_APPS += ["numbered"]\n'
URLS = """
from django.urls import include, path  # noqa: E402

urlpatterns += [path("numbered/", include("numbered.urls"))]
"""


def add_numbered(project, package):
    """Add the app of the numbered tasks to a project whose settings are in `package`."""
    shutil.copytree(BENCHMARKS / "numbered", project.path / "numbered", ignore=LEFT_BEHIND)
    for name, text in (("settings.py", SETTINGS), ("urls.py", URLS)):
        with (project.path / package / name).open("a") as file:
            file.write(text)


class Kind:
    """One of the two services, made once; each stack gets a copy of it."""

    name = ""
    package = ""  # with settings, URLs and the Celery app

    def __init__(self, folder, authority, venv):
        """Make it in the folder and build it in `venv`; `authority` signed Redis's certificate."""
        self._folder = Path(folder)
        self._authority = authority
        self._folder.mkdir(parents=True)
        self.project = self.make(venv)
        add_numbered(self.project, self.package)
        self._build(venv)
        # Migrations run once; every stack on SQLite gets a copy of the empty database.
        self.empty_database = self._folder / "empty.sqlite3"
        self.migrate(self.project, self.commands(self.project, self._anything()))

    def copy(self, folder):
        """The project again, with a folder of its own."""
        path = shutil.copytree(
            self.project.path, Path(folder) / self.project.slug, ignore=LEFT_BEHIND
        )
        return Project(path, venv=self.project.venv)

    def migrate(self, project, commands):
        """Make the tables."""
        project.predeploy(commands)

    def make(self, venv):
        """Make the project without the numbered tasks."""
        raise NotImplementedError

    def commands(self, project, given):
        """Return what the platform runs; `given` has the keys of `_anything()`."""
        raise NotImplementedError

    def change_url(self, commands, url):
        """Give the next start another Redis URL."""
        for environment in commands.environment.values():
            environment[self.url_name] = url

    def _build(self, venv):
        venv.build(self.project, self.commands(self.project, self._anything()))

    def _anything(self):
        return {
            "redis": "rediss://localhost:6379/0",
            "database": f"sqlite:///{self._folder / 'empty.sqlite3'}",
            "mail_port": 25,
            "processes": 2,
            "numbered": str(self._folder / "numbered.txt"),
        }


class Ours(Kind):
    """The template's, with its render.yaml."""

    name = OURS
    package = "config"
    url_name = "REDIS_URL"

    def make(self, venv):
        answers = {"redis_provider": "self_hosted", "deploy_target": "render"}
        return Project(bake(self._folder / "baked", **answers), venv=venv.path)

    def commands(self, project, given):
        added = {
            "RENDER_EXTERNAL_HOSTNAME": OUTSIDE_NAME,
            "CELERY_WORKER_CONCURRENCY": str(given["processes"]),
            "NUMBERED_FILE": given["numbered"],
        }
        asked_for = {
            "DATABASE_URL": given["database"],
            self.url_name: given["redis"],
            "REDIS_CA_CERTS": str(self._authority.pem),
            "EMAIL_URL": f"smtp://127.0.0.1:{given['mail_port']}",
            "DEFAULT_FROM_EMAIL": f"service@{OUTSIDE_NAME}",
        }
        commands = commands_of(project, "render", asked_for)
        for environment in commands.environment.values():
            environment |= added
        return commands


class Plain(Kind):
    """Django and Celery with their defaults: the folder benchmarks/plain."""

    name = PLAIN
    package = "plain"
    url_name = "CELERY_BROKER_URL"

    def make(self, venv):
        path = shutil.copytree(
            BENCHMARKS / "plain", self._folder / "copied" / "plain", ignore=LEFT_BEHIND
        )
        return Project(path, venv=venv.path)

    def commands(self, project, given):
        environment = {
            "SECRET_KEY": secrets.token_urlsafe(40),
            "DATABASE_URL": given["database"],
            self.url_name: given["redis"],
            "REDIS_CA_CERTS": str(self._authority.pem),
            "EMAIL_HOST": "127.0.0.1",
            "EMAIL_PORT": str(given["mail_port"]),
            "PROCESSES": str(given["processes"]),
            "NUMBERED_FILE": given["numbered"],
        }
        return Commands(
            "true",
            "python manage.py migrate --noinput",
            {"service": "supervisord -c supervisord.conf"},
            {"service": environment},
        )

    def _build(self, venv):
        """Do nothing, because plain Celery runs in the environment of the other service."""
        if not (venv.path / "bin" / "celery").exists():
            raise Failed("build the other service first: both share its virtual environment")


def versions(venv):
    """{package: version} of what both services run on."""
    found = {}
    for path in venv.path.glob("lib/python*/site-packages/*.dist-info"):
        match = re.fullmatch(r"(celery|kombu|redis|django|supervisor)-(.+)\.dist-info", path.name)
        if match:
            found[match[1]] = match[2]
    return found
