"""The environment variables of this service, read strictly.

All variables that are wrong are named at once, in one line each, and no value is shown: any value
may be a secret.
"""

import io
import os
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from dotenv.parser import parse_stream

from redis_connection.errors import InvalidSetting, InvalidSettings
from redis_connection.policy import Policy, read_policy

TRUE = ("true", "1", "yes", "on")
FALSE = ("false", "0", "no", "off")

LARGEST = 999_999_999  # of any number

T = TypeVar("T")

# Stands in for a policy that was refused, until `exit_if_wrong()` ends the process.
NO_POLICY = Policy("redis://localhost:6379/0")


class Environment:
    """The variables of the process, then those of `.env`, then this service's defaults.

    `.env` is for development. An empty variable counts as not set, and hides that of `.env`.

    What is wrong with a variable is noted in `problems`, and the default is returned in place of
    its value. So the settings can be read to their end, where `exit_if_wrong()` reports all
    problems.
    """

    def __init__(self, dotenv: Path, defaults: dict[str, str]) -> None:
        self.problems: list[str] = []
        self.defaults = defaults
        if dotenv.is_file():
            self.read_dotenv(dotenv)
        elif os.path.lexists(dotenv):
            # Docker makes a folder where a file to mount is missing.
            self.refuse(f"{dotenv.name} is not a file: make it one, or remove it.")
        given = {name: text for name, text in os.environ.items() if text.strip()}
        self.values = defaults | given

    def read_dotenv(self, path: Path) -> None:
        """Put the variables of the file into the environment, unless they are there already.

        An empty one is left out: what stands further down in the file may give it a value. They go
        into `os.environ` because Celery and gunicorn read some variables themselves.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            self.refuse(
                f"{path.name} cannot be read: save it as UTF-8 text that this user may read."
            )
            return
        for name, value, line in variables_in(text):
            if name is None or value is None:
                self.refuse(
                    f"Line {line} of {path.name} is not of the form NAME=value: correct it. A value"
                    " of several lines stands in quotes."
                )
            elif value.strip():
                os.environ.setdefault(name, value)

    def refuse(self, problem: str) -> None:
        """Note what is wrong, in a sentence that shows no part of a value."""
        if problem not in self.problems:
            self.problems.append(problem)

    def exit_if_wrong(self) -> None:
        """End the process with status 2 if a variable was refused, and say why on stderr.

        This raises SystemExit, so it also ends a program that only imports the settings, such as
        an editor's Django plugin or a test runner. Such a program needs the variables, too.
        """
        if self.problems:
            print("\n".join(self.problems), file=sys.stderr, flush=True)
            raise SystemExit(2)

    def text(self, name: str, default: str = "") -> str:
        """The value, which is refused if it has the quotes that `docker run --env-file` keeps."""
        given = self.values.get(name, default).strip()
        if len(given) > 1 and given[0] == given[-1] and given[0] in "\"'":
            self.refuse(f"{name} begins and ends with a quote: remove the quotes around the value.")
            return given[1:-1].strip()
        return given

    def list(self, name: str) -> list[str]:
        """The items of a list that is separated by commas."""
        items = [item.strip() for item in self.text(name).split(",")]
        return [item for item in items if item]

    def choice(self, name: str, choices: tuple[str, ...], default: str = "") -> str:
        """One of the choices, written with capital or small letters."""
        given = self.text(name, default).lower()
        for choice in choices:
            if given == choice.lower():
                return choice
        self.refuse(f"{name} is not one of: {', '.join(choices)}.")
        return self.defaults.get(name, default)

    def boolean(self, name: str, default: str = "false") -> bool:
        given = self.text(name, default).lower()
        if given not in TRUE + FALSE:
            self.refuse(f"{name} is neither true nor false: write true or false.")
            given = self.defaults.get(name, default)
        return given in TRUE

    def integer(
        self, name: str, default: str = "0", *, minimum: int = 0, maximum: int | None = None
    ) -> int:
        given = self.text(name, default)
        most = LARGEST if maximum is None else maximum
        if re.fullmatch("[0-9]{1,9}", given) and minimum <= int(given) <= most:
            return int(given)
        if maximum is None:
            bounds = f"of at least {minimum}, with at most 9 digits"
        else:
            bounds = f"from {minimum} to {maximum}"
        self.refuse(f"{name} is not a whole number {bounds}: give one.")
        usual = self.defaults.get(name, default)
        return max(minimum, int(usual)) if usual.isdecimal() else minimum

    def parsed(self, name: str, read: Callable[[str, str], T], default: T) -> T:
        """What `read` makes of the name and the value of the variable, if it is set."""
        given = self.text(name)
        try:
            return read(name, given) if given else default
        except InvalidSetting as error:
            self.refuse(str(error))
            return default

    def all_parsed(self, name: str, read: Callable[[str, str], T]) -> Iterable[T]:
        """What `read` makes of the name and each item of a list that is separated by commas."""
        for item in self.list(name):
            try:
                yield read(name, item)
            except InvalidSetting as error:
                self.refuse(str(error))

    def redis_policy(self, name: str, *, production: bool) -> Policy:
        """The Redis URL in the variable, with the TLS policy of REDIS_CERT_REQS and its neighbours.

        In development the URL may be missing, and any host may be reached without TLS.
        """
        try:
            return read_policy(
                name,
                self.text(name, "" if production else "redis://localhost:6379/0"),
                cert_reqs=self.choice("REDIS_CERT_REQS", ("required", "optional", "none")),
                check_hostname=self.boolean("REDIS_CHECK_HOSTNAME"),
                databases=self.integer("REDIS_DATABASES", minimum=1),
                ca_certs=self.pem("REDIS_CA_CERTS"),
                client_cert=self.pem("REDIS_CLIENT_CERT"),
                client_key=self.pem("REDIS_CLIENT_KEY"),
                plaintext_hosts=self.list("REDIS_ALLOW_PLAINTEXT") if production else None,
            )
        except InvalidSettings as error:
            for problem in error.problems:
                self.refuse(problem)
            return NO_POLICY

    def pem(self, name: str) -> str:
        """The path or text of a PEM file. `docker run --env-file` keeps the quotes around it."""
        return self.values.get(name, "").strip().strip("\"'")


def variables_in(text: str) -> list[tuple[str | None, str | None, int]]:
    """The name, value and line of each entry of a `.env` file; None for what cannot be read.

    A `$` refers to nothing, since a password may begin with one. Outside of quotes, a comment
    begins with ` #`. Within double quotes, a backslash begins an escape, as in Python.
    """
    found: list[tuple[str | None, str | None, int]] = []
    for entry in parse_stream(io.StringIO(text)):
        written = entry.original.string
        if not written.strip() or written.lstrip().startswith("#"):
            continue
        # What was written begins with the empty lines before the entry.
        entry_itself = written.lstrip()
        line = entry.original.line + written.removesuffix(entry_itself).count("\n")
        if "\0" in written or "=" in (entry.key or ""):
            # No environment can have such a variable.
            found.append((None, None, line))
        else:
            found.append((entry.key, entry.value, line))
    return found


def overrule_celery_variables(broker: str, results: str | None) -> None:
    """Make Celery's own variables name these URLs, or no store of results.

    Celery takes CELERY_BROKER_URL, CELERY_BROKER_READ_URL, CELERY_BROKER_WRITE_URL and
    CELERY_RESULT_BACKEND from the environment before it looks at any setting
    (`celery.app.utils.Settings`). So the URLs of this service go there. In a setting named
    CELERY_BROKER_URL, `celery inspect conf` and `celery report` would show the password
    (D-24, D-44).
    """
    os.environ["CELERY_BROKER_URL"] = broker
    for name in ("CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL"):
        if name in os.environ:
            os.environ[name] = broker
    if results is None:
        # Celery would take an empty variable for a store of results.
        os.environ.pop("CELERY_RESULT_BACKEND", None)
    else:
        os.environ["CELERY_RESULT_BACKEND"] = results
