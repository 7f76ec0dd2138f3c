"""Runs probes: small checks that return what they saw, or raise ProbeFailed with a hint."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from django.db import DatabaseError
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from redis_connection import hints
from redis_connection.diagnosis import ProbeFailed

DATABASE = (
    "Redis is not at fault. Look at DATABASE_URL and its server, and run `manage.py migrate`."
)


@dataclass(frozen=True)
class Result:
    name: str
    state: Literal["ok", "warn", "fail", "not reached"]
    detail: str = ""
    hint: str = ""


@dataclass(frozen=True)
class Probe:
    """A name, and what to call: it returns a detail, or raises."""

    name: str
    check: Callable[[], str]

    def run(self) -> Result:
        try:
            return Result(self.name, "ok", self.check())
        except Exception as error:  # a doctor that crashes explains nothing
            failure = failure_of(error)
        return Result(self.name, failure.state, failure.detail, failure.hint)


def run(probes: Iterable[Probe], *, stop_at_failure: bool = True) -> Iterator[Result]:
    """Each probe's result as it comes.

    With `stop_at_failure` the probes behind a failure are not run, and come as "not reached".
    """
    failed = False
    for probe in probes:
        if failed and stop_at_failure:
            yield Result(probe.name, "not reached")
            continue
        result = probe.run()
        if result.state == "fail":
            failed = True
        yield result


def failure_of(error: Exception) -> ProbeFailed:
    """The failure that an error of a probe stands for."""
    if isinstance(error, ProbeFailed):
        return error
    if isinstance(error, (OSError, RedisError, OperationalError)):
        return ProbeFailed(str(error), hints.hint_for_error(error))
    if isinstance(error, DatabaseError):
        return ProbeFailed(f"SQL database: {error}", DATABASE)
    return ProbeFailed(f"{type(error).__name__}: {error}", hints.UNKNOWN)
