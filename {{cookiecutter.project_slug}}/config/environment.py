"""The environment variables of this service: read strictly, refused in one line."""

import os
import re
import warnings
from pathlib import Path

import environ


class Refused(SystemExit):
    """An environment variable that cannot work, in one line that shows no part of a secret.

    It shows a URL's host and a file's path, but no other value: any may be a secret. Uncaught it
    ends manage.py, celery and gunicorn with that line on stderr and exit status 1.
    """


class Environment:
    """The process environment (and `.env`, for development) over this service's defaults.

    Values are read as they are: django-environ, which parses the database and e-mail URLs,
    would take a password that starts with `$` for a reference.
    """

    def __init__(self, dotenv: Path, defaults: dict[str, str]):
        if dotenv.is_file():
            environ.Env.read_env(dotenv, encoding="utf-8")
        self.values = defaults | {name: text for name, text in os.environ.items() if text.strip()}

    def text(self, name: str, default: str = "") -> str:
        return self.values.get(name, default).strip()

    def first_set(self, *names: str) -> str:
        """The first of these names that has a value, else the last."""
        return next((name for name in names if self.text(name)), names[-1])

    def list(self, name: str) -> list[str]:
        return [item.strip() for item in self.text(name).split(",") if item.strip()]

    def boolean(self, name: str, default: str = "") -> bool:
        text = self.text(name, default).lower()
        if text not in ("true", "1", "yes", "on", "false", "0", "no", "off"):
            raise Refused(f"{name} is neither true nor false: write true or false.")
        return text in ("true", "1", "yes", "on")

    def integer(self, name: str, default: str = "", *, minimum: int = 0) -> int:
        text = self.text(name, default)
        if not re.fullmatch("[0-9]{1,9}", text) or int(text) < minimum:
            raise Refused(f"{name} is not a whole number of at least {minimum}: give one.")
        return int(text)

    def url(self, name: str, default: str, parse, form: str) -> dict:
        """What `parse` makes of it; its own errors and warnings would quote the URL."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                return parse(self.text(name, default))
        except Exception:
            raise Refused(
                f"{name} cannot be read: write {form}, with the password percent-encoded."
            ) from None
