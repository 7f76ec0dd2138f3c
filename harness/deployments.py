"""Services baked and built once, and the certificates of their stand-ins."""

import copy
import secrets
import shutil
import sys
from dataclasses import replace

from harness.answers import ROWS
from harness.browser import Browser, Mailbox
from harness.certificates import Authority, self_signed
from harness.service import OUTSIDE_NAME, Project, bake, commands_of

PASSWORD = "pw-in-tests-$only/with+signs"
DATABASE = "db.sqlite3"

# What a row is baked for; any other for the last target it can be reached from.
TARGETS = {
    "render": "render",
    "render_public": "render",
    "heroku": "procfile",
    "upstash": "render_services",
}
# Answers that differ from these render the same commands: one of each target.
ONE_OF_EACH_TARGET = ["render", "upstash", "self_hosted", "heroku"]


class Certificates:
    """Every certificate of the session.

    `public` is a CA of the system's store (services get it by SSL_CERT_FILE), `own` one's own,
    `stranger` one that nobody trusts.
    """

    def __init__(self, folder):
        self.public = Authority(folder, "Public test CA")
        self.own = Authority(folder, "Own test CA")
        self.stranger = Authority(folder, "Stranger CA")
        self.of_public = self.public.issue()
        self.of_own = self.own.issue()
        self.of_own_nameless = self.own.issue_nameless("10.0.0.3")
        # As Heroku's: signed by itself, a CN that is not the host one connects to.
        self.herokus = self_signed(folder, "ec2-1-2-3-4.compute-1.amazonaws.com")

    def of(self, row):
        """What a server shows that behaves as the row says, or None for plain text."""
        kinds = {
            "none": None,
            "system": self.of_public,
            "self_signed": self.herokus,
            # Unchecked, the host name need not be in it; Google's hold the address as CN only.
            "provider_file": self.of_own if row["check_hostname"] else self.of_own_nameless,
            "own": self.of_own,
        }
        return kinds[row["ca"]]

    def paths(self, settings):
        """The settings with "herokus" in them replaced by the path of that certificate."""
        return {
            name: str(self.herokus.chain) if value == "herokus" else value
            for name, value in settings.items()
        }

    def impostor(self, kind):
        """What a man in the middle can show."""
        if kind == "another CA":
            return self.stranger.issue()
        if kind == "public CA, another host":
            return self.public.issue("attacker.example")
        raise ValueError(kind)


class Venv:
    """One virtual environment for all projects with the same locked requirements."""

    def __init__(self, path, python=sys.executable):
        """Make it with `python`, a path; it holds nothing but pip at first."""
        self.path = path
        self._python = python
        self._installed = None

    def build(self, project, commands):
        """Run the build command, without its installation if that was done before."""
        lock = (project.path / "requirements.txt").read_bytes()
        install, _, rest = commands.build.partition(" && ")
        if self._installed is None:
            project.make_venv(self._python)
        if self._installed != lock:
            rest = commands.build
        assert install.startswith("pip install "), commands.build
        self._installed = lock
        project.build(replace(commands, build=rest))


class Deployment:
    """A built project, ready to be started again and again, each time with a new database."""

    def __init__(self, provider, folder, certificates, venv, strictness="recommended"):
        """Bake and build it in `venv`, a Venv, which many projects may share."""
        self.provider = provider
        self.row = ROWS[provider]
        self.target = TARGETS.get(provider, self.row["reachable_from"][-1])
        # Off where each command is billed.
        self.remote_control = not self.row["billed_per_command"]
        self.certificates = certificates
        self._folder = folder
        self._starts = 0
        answers = {"redis_provider": provider, "cert_strictness": strictness}
        path = bake(folder, **answers, deploy_target=self.target)
        self.project = Project(path, venv=venv.path)
        self.commands = self._commands("redis://localhost:6379/0", folder / "build", {})
        venv.build(self.project, self.commands)

    def copy(self, folder):
        """The same build with sources of its own, for a test that changes them."""
        other = copy.copy(self)
        other._folder = folder
        ignored = shutil.ignore_patterns("supervisor.*", "supervisord.pid")
        path = shutil.copytree(self.project.path, folder / self.project.slug, ignore=ignored)
        other.project = Project(path, venv=self.project.venv)
        return other

    def configure(self, url, **settings):
        """Give the project the environment of a new deploy, with a new database.

        `url` is the Redis URL; more `settings` are environment variables, None takes one away.
        """
        self._starts += 1
        self._start = self._folder / f"start-{self._starts}"
        self._start.mkdir()
        commands = self._commands(url, self._start, settings)
        # For manage.py, which has the environment of the web process on every platform.
        self.project.settings = commands.first_environment()
        return commands

    def start(self, url, *, port=None, command=None, **settings):
        """`configure()`, migrate, and start everything as the target's files say.

        `port` is the web server's, a free one by default; `command` is run instead of the target's
        only one. The service gets a `mailbox` and a `database` (a path); `browser()` opens it.
        """
        commands = self.configure(url, **settings)
        if command:
            (name,) = commands.start
            commands.start[name] = command
        self.project.predeploy(commands)
        service = self.project.start(commands, port=port, logs=self._start / "logs")
        service.mailbox = Mailbox(self._start / "mail")
        service.database = self._start / DATABASE
        service.browser = lambda: Browser(service.port, OUTSIDE_NAME)
        return service

    def _commands(self, url, folder, settings):
        # What the platform itself sets, or the person who deploys types in.
        given = {
            "DATABASE_URL": f"sqlite:///{folder / DATABASE}",
            self.row["url_env"]: url,
            "EMAIL_URL": Mailbox(folder / "mail").url,
            "DEFAULT_FROM_EMAIL": f"service@{OUTSIDE_NAME}",
            # Its system store, with the public test CA in it.
            "SSL_CERT_FILE": str(self.certificates.public.pem),
        }
        if self.target in ("procfile", "server"):
            given |= {"ALLOWED_HOSTS": OUTSIDE_NAME, "SECRET_KEY": secrets.token_urlsafe(40)}
        else:
            given["RENDER_EXTERNAL_HOSTNAME"] = OUTSIDE_NAME
        if self.row["ca"] in ("own", "provider_file"):
            given["REDIS_CA_CERTS"] = str(self.certificates.own.pem)
        given |= settings
        commands = commands_of(self.project, self.target, given)
        # Beyond the keys of render.yaml: what the platform adds by itself, and what is typed in.
        for environment in commands.environment.values():
            for name in ("SSL_CERT_FILE", "RENDER_EXTERNAL_HOSTNAME", *settings):
                if given.get(name) is not None:
                    environment[name] = given[name]
        return commands
