"""Services baked and built once, and the certificates of their stand-ins."""

import copy
import secrets
import shutil
import sys
from dataclasses import replace

from filelock import FileLock

from harness import policy_classes
from harness.answers import ROWS
from harness.browser import Browser, Mailbox
from harness.certificates import Authority, self_signed
from harness.service import OUTSIDE_NAME, Project, bake, commands_of

PASSWORD = "pw-in-tests-$only/with+signs"
DATABASE = "db.sqlite3"

# The target that a row is baked for. Other rows take the last one that they can be reached from.
TARGETS = {
    "render": "render",
    "render_public": "render",
    "heroku": "procfile",
    "upstash": "render_services",
}
# All other answers render the same commands as these, one for each target.
ONE_OF_EACH_TARGET = ["render", "upstash", "self_hosted", "heroku"]


def target_of(provider):
    """Return the deploy target that this row is baked for."""
    return TARGETS.get(provider, ROWS[provider]["reachable_from"][-1])


class Certificates:
    """Every certificate of the session.

    `public` stands for a CA of the system's store; services get it by SSL_CERT_FILE. `own` is the
    owner's CA, and `stranger` is a CA that nobody trusts.
    """

    def __init__(self, folder):
        self.public = Authority(folder, "Public test CA")
        self.own = Authority(folder, "Own test CA")
        self.stranger = Authority(folder, "Stranger CA")
        self.of_public = self.public.issue()
        self.of_own = self.own.issue()
        self.of_own_nameless = self.own.issue_nameless("10.0.0.3")
        # As Heroku's: self-signed, with a CN that is not the host of the URL.
        self.herokus = self_signed(folder, "ec2-1-2-3-4.compute-1.amazonaws.com")

    def of(self, row):
        """Return the certificate that a server of this row shows, or None for plain text."""
        kinds = {
            "none": None,
            "system": self.of_public,
            "self_signed": self.herokus,
            # Google's certificates have an address as CN only; the host name is not checked.
            "provider_file": self.of_own if row["check_hostname"] else self.of_own_nameless,
            "own": self.of_own,
        }
        return kinds[row["ca"]]

    def paths(self, settings):
        """Return the settings with "herokus" replaced by the path of that certificate."""
        return {
            name: str(self.herokus.chain) if value == "herokus" else value
            for name, value in settings.items()
        }

    def impostor(self, kind):
        """Return the certificate that a man in the middle can show."""
        if kind == "another CA":
            return self.stranger.issue()
        if kind == "public CA, another host":
            return self.public.issue("attacker.example")
        raise ValueError(kind)


def made_once(path, make):
    """Call `make` unless another process of the run has made what is at `path`, to its end.

    Who comes meanwhile waits. What was left unfinished is made again.
    """
    finished = path.with_name(f"{path.name}.finished")
    with FileLock(path.with_name(f"{path.name}.lock")):
        if not finished.exists():
            make()
            finished.touch()


class Venv:
    """One virtual environment for all projects with the same locked requirements.

    All processes of a test run share it: the first one makes it, and the others wait for that.
    """

    def __init__(self, path, python=sys.executable):
        """Use the environment at that path, made with this Python; at first it holds pip only."""
        self.path = path
        self._python = python
        # The requirements that are installed there.
        self._installed = path.with_name(f"{path.name}.txt")

    def build(self, project, commands):
        """Run the build command; leave out the installation where it was done before."""
        lock = (project.path / "requirements.txt").read_bytes()
        install, _, rest = commands.build.partition(" && ")
        assert install.startswith("pip install "), commands.build
        with FileLock(self.path.with_name(f"{self.path.name}.lock")):
            if not self._installed.exists():
                project.make_venv(self._python)
            if not self._installed.exists() or self._installed.read_bytes() != lock:
                project.build(replace(commands, build=install))
                self._installed.write_bytes(lock)
        project.build(replace(commands, build=rest))


class Deployment:
    """A built project, ready to be started again and again, each time with a new database."""

    def __init__(self, provider, folder, certificates, venv, strictness="recommended"):
        """Bake the project and build it in `venv`, which many projects may share.

        All processes of a test run bake and build it once, and then each takes a copy.
        """
        self.provider = provider
        self.row = ROWS[provider]
        self.target = target_of(provider)
        # Remote control is off where each command is billed.
        self.remote_control = not self.row["billed_per_command"]
        self.certificates = certificates
        self._folder = folder
        self._starts = 0
        built = venv.path.with_name(f"{venv.path.name}-{provider}-{strictness}")
        with FileLock(f"{built}.lock"):
            if not built.exists():
                unfinished = built.with_name(f"{built.name}-unfinished")
                self._build(unfinished, venv, strictness)
                unfinished.rename(built)
        path = next(built.glob("*/manage.py")).parent
        self.project = Project(shutil.copytree(path, folder / path.name), venv=venv.path)
        self.commands = self._commands("redis://localhost:6379/0", folder / "build", {})

    def _build(self, folder, venv, strictness):
        answers = {"redis_provider": self.provider, "cert_strictness": strictness}
        path = bake(folder, **answers, deploy_target=self.target)
        self.project = Project(path, venv=venv.path)
        venv.build(self.project, self._commands("redis://localhost:6379/0", folder / "build", {}))

    def copy(self, folder):
        """Return the same build with its own copy of the sources, for a test that changes them."""
        other = copy.copy(self)
        other._folder = folder
        ignored = shutil.ignore_patterns("supervisor.*", "supervisord.pid")
        path = shutil.copytree(self.project.path, folder / self.project.slug, ignore=ignored)
        other.project = Project(path, venv=self.project.venv)
        return other

    def configure(self, url, **settings):
        """Give the project the environment of a new deploy, with a new database.

        `url` is the Redis URL. Other `settings` are environment variables; None takes one away.
        """
        self._starts += 1
        self._start = self._folder / f"start-{self._starts}"
        self._start.mkdir()
        commands = self._commands(url, self._start, settings)
        # manage.py has the environment of the web process on every platform.
        self.project.settings = commands.first_environment()
        return commands

    def start(self, url, *, port=None, command=None, tables=None, **settings):
        """`configure()`, migrate, and start everything as the target's files say.

        `port` is the web server's, by default a free one. `command` replaces the only command of a
        target that has one. `tables` is a migrated database to copy instead of migrating. The
        service gets a `mailbox` and a `database` (a path). `browser()`
        opens its pages.
        """
        commands = self.configure(url, **settings)
        if command:
            (name,) = commands.start
            commands.start[name] = command
        if tables:
            shutil.copy(tables, self._start / DATABASE)
        else:
            self.project.predeploy(commands)
        service = self.project.start(commands, port=port, logs=self._start / "logs")
        service.mailbox = Mailbox(self._start / "mail")
        service.database = self._start / DATABASE
        service.browser = lambda: Browser(service.port, OUTSIDE_NAME)
        return service

    def _commands(self, url, folder, settings):
        # What the platform sets, or the person who deploys types in.
        given = {
            "DATABASE_URL": f"sqlite:///{folder / DATABASE}",
            self.row["url_env"]: url,
            "EMAIL_URL": Mailbox(folder / "mail").url,
            "DEFAULT_FROM_EMAIL": f"service@{OUTSIDE_NAME}",
            # Stands for the system's store, and holds the public test CA.
            "SSL_CERT_FILE": str(self.certificates.public.pem),
        }
        if self.target in ("procfile", "server"):
            given |= {"ALLOWED_HOSTS": OUTSIDE_NAME, "SECRET_KEY": secrets.token_urlsafe(40)}
        else:
            given["RENDER_EXTERNAL_HOSTNAME"] = OUTSIDE_NAME
        given |= policy_classes.given(self.row, str(self.certificates.own.pem)) | settings
        commands = commands_of(self.project, self.target, given)
        # These are not in render.yaml: the platform adds them, or whoever deploys types them in.
        for environment in commands.environment.values():
            for name in ("SSL_CERT_FILE", *settings):
                if given.get(name) is not None:
                    environment[name] = given[name]
        if "RENDER_EXTERNAL_HOSTNAME" in given:
            # Render gives it to web services only.
            web = commands.first_environment()
            web["RENDER_EXTERNAL_HOSTNAME"] = given["RENDER_EXTERNAL_HOSTNAME"]
        return commands
