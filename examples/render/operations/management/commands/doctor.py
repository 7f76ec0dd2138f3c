import argparse
import json
import os
import sys
import time
from contextlib import redirect_stdout
from dataclasses import replace
from math import inf, isfinite
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.utils.log import configure_logging

from operations import probes, readiness, worker_probes
from operations.probes import Probe, Result
from redis_connection.diagnosis import RedisDiagnosis
from redis_connection.handshake import shake_hands

# Exit statuses; 0 is healthy.
PROBE_FAILED = 1
COULD_NOT_RUN = 2  # argparse's status, too, for options that cannot be used
STDOUT = 1  # its file descriptor
INTERRUPTED = 130  # as shells have it for a program that Ctrl-C ended

COLUMN = 13  # characters of the report's first and second column


class Command(BaseCommand):
    help = (
        "Checks the connection to Redis and the way of a task through a worker, step by step."
        " Where a step fails, it says what to do."
        " Exit status: 0 healthy, 1 a probe failed, 2 the doctor could not run."
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--json",
            action="store_true",
            help="print one JSON object",
        )
        parser.add_argument(
            "--wait",
            type=number,
            default=0,
            metavar="SECONDS",
            help="try again until all is well, for at most so many seconds",
        )
        parser.add_argument(
            "--fail-within",
            type=number,
            default=-inf,
            metavar="DAYS",
            help="fail if the server's certificate expires within so many days",
        )
        parser.add_argument(
            "--certificate",
            action="store_true",
            help="print the server's certificate for REDIS_CA_CERTS; it is not verified",
        )

    def execute(self, *args: Any, **options: Any) -> None:
        # Logs go to stderr. Stdout, which self.stdout still is, is for the report alone.
        with redirect_stdout(sys.stderr):
            configure_logging(settings.LOGGING_CONFIG, settings.LOGGING)
            try:
                super().execute(*args, **options)
            except CommandError as error:
                # Whatever it is, a system check or the lack of a certificate: no probe has failed.
                error.returncode = COULD_NOT_RUN
                raise
            except KeyboardInterrupt:
                sys.exit(INTERRUPTED)
            except BrokenPipeError:
                # As `| head` ends. Python would complain once more when it writes what is left.
                os.dup2(os.open(os.devnull, os.O_WRONLY), STDOUT)
                sys.exit(COULD_NOT_RUN)

    def handle(self, **options: Any) -> None:
        if options["certificate"]:
            self.print_certificate()
            return
        as_json = options["json"]
        fail_within = options["fail_within"]
        deadline = time.monotonic() + options["wait"]
        results = self.examine(fail_within, silent=as_json)
        while not is_healthy(results) and time.monotonic() < deadline:
            time.sleep(1)
            if not as_json:
                self.say("\nOnce more:\n")
            results = self.examine(fail_within, silent=as_json)
        if as_json:
            self.print_json(results)
        if not is_healthy(results):
            sys.exit(PROBE_FAILED)

    def say(self, text: str) -> None:
        """Print the text at once, also into a pipe: what waits in a buffer is seen too late."""
        self.stdout.write(text)
        self.stdout.flush()

    def examine(self, fail_within: float, *, silent: bool) -> list[Result]:
        """The results of all steps; unless `silent`, each is printed as it comes."""
        results = []
        for result in probes.run(steps(fail_within)):
            if not silent:
                self.print_result(result)
            results.append(result)
        return results

    def print_result(self, result: Result) -> None:
        state = "FAIL" if result.state == "fail" else result.state
        line = f"{result.name:<{COLUMN}}{state:<{COLUMN}}{result.detail}"
        self.say(line.rstrip())
        if result.hint:
            self.say(f"{'':<{COLUMN}}{'to do:':<{COLUMN}}{result.hint}")

    def print_json(self, results: list[Result]) -> None:
        report = {
            "healthy": is_healthy(results),
            "probes": [
                {
                    "name": result.name,
                    "state": result.state,
                    "seen": result.detail,
                    "fix": result.hint,
                }
                for result in results
            ],
        }
        self.say(json.dumps(report, indent=2))

    def print_certificate(self) -> None:
        """Print the server's certificate, with its fingerprint before it.

        The certificate is not verified: an operator compares the fingerprint.
        """
        redis = RedisDiagnosis(replace(settings.REDIS, cert_reqs="none"))
        if not redis.policy.encrypted:
            raise CommandError("The URL is redis://: there is no certificate.")
        try:
            certificate = shake_hands(redis.policy).certificate
        except OSError as error:
            raise CommandError(
                f"No certificate came from {redis.host} port {redis.port}: {error}"
                f" {redis.diagnose(error)}"
            ) from error
        self.say(f"# {redis.host} port {redis.port}: {certificate}")
        self.say(f"# Names {', '.join(certificate.hosts) or '-'}")
        self.say(f"# SHA-256 {certificate.fingerprint}")
        self.say(
            "# Compare this fingerprint with one that reached you in another way: from your"
            " provider, or from the server itself."
        )
        self.say(certificate.pem)


def steps(fail_within: float) -> list[Probe]:
    """The doctor's steps, in the order in which a task passes what they look at."""
    redis = RedisDiagnosis(
        settings.REDIS,
        connection_limit=settings.REDIS_MAX_CONNECTIONS,
        fail_within=fail_within,
        plaintext_allowed=plaintext_is_allowed(),
        key=readiness.KEY,
    )
    return [
        Probe("resolve", redis.resolve),
        Probe("connect", redis.connect),
        Probe("handshake", redis.handshake),
        Probe("auth", redis.auth),
        Probe("ping", redis.ping),
        Probe("eviction", redis.eviction),
        Probe("memory", redis.memory),
        Probe("connections", redis.connections),
        Probe("redis db", redis.database),
        Probe("write", redis.write),
        Probe("results", worker_probes.results),
        Probe("queues", worker_probes.queues),
        Probe("round trip", worker_probes.round_trip),
        Probe("consumers", worker_probes.consumers),
        Probe("workers", worker_probes.workers),
        Probe("emails", worker_probes.emails),
        Probe("put aside", worker_probes.put_aside),
        Probe("beat", worker_probes.beat),
    ]


def plaintext_is_allowed() -> bool:
    """Whether an operator has allowed plain text, in the environment.

    The default in settings.py names hosts of a provider's private network, which need no warning.
    """
    return bool(os.environ.get("REDIS_ALLOW_PLAINTEXT", "").strip())


def is_healthy(results: list[Result]) -> bool:
    return all(result.state in ("ok", "warn") for result in results)


def number(text: str) -> float:
    """A number for argparse. Infinity is refused, and so is nan, which compares to nothing."""
    value = float(text)
    if not isfinite(value):
        raise ValueError(text)
    return value
