import json
import ssl
import sys
import time
from contextlib import redirect_stdout
from dataclasses import replace
from hashlib import sha256
from math import inf, isfinite

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.utils.log import configure_logging
from redis.exceptions import RedisError

from operations import probes


def number(text: str) -> float:
    """Not infinite, and not nan, which compares to nothing."""
    if not isfinite(value := float(text)):
        raise ValueError
    return value


class Command(BaseCommand):
    help = (
        "Goes the way to Redis and through a worker, step by step, and says where it ends."
        " Exit status: 0 healthy, 1 a probe failed, 2 the doctor could not run."
    )

    def add_arguments(self, parser):
        parser.add_argument("--json", action="store_true", help="print one JSON object")
        wait = "start again until all is well, for so long"
        parser.add_argument("--wait", type=number, default=0, metavar="SECONDS", help=wait)
        days = "fail if the server's certificate expires within so many days"
        parser.add_argument("--fail-within", type=number, default=-inf, metavar="DAYS", help=days)
        pem = "print the server's certificate, which is not verified then, for REDIS_CA_CERTS"
        parser.add_argument("--certificate", action="store_true", help=pem)

    def execute(self, *args, **options):
        # Logs go to stderr: stdout, which self.stdout still is, is for the report alone.
        with redirect_stdout(sys.stderr):
            configure_logging(settings.LOGGING_CONFIG, settings.LOGGING)
            super().execute(*args, **options)

    def handle(self, **options):
        if options["certificate"]:
            return self.print_certificate()
        deadline = time.monotonic() + options["wait"]
        while True:
            results = []
            for result in probes.run(probes.Way(fail_within=options["fail_within"]).probes()):
                results.append(result)
                if not options["json"]:
                    self.print_result(result)
            healthy = all(result.state in ("ok", "warn") for result in results)
            if healthy or time.monotonic() >= deadline:
                break
            time.sleep(1)
            if not options["json"]:
                self.stdout.write("\nOnce more:\n")
        if options["json"]:
            report = {"healthy": healthy, "probes": [vars(result) for result in results]}
            self.stdout.write(json.dumps(report, indent=2))
        if not healthy:
            sys.exit(1)

    def print_result(self, result: probes.Result):
        state = result.state.replace("fail", "FAIL")
        self.stdout.write(f"{result.name:<13}{state:<13}{result.seen}".rstrip())
        if result.fix:
            self.stdout.write(f"{'':<13}{'to do:':<13}{result.fix}")

    def print_certificate(self):
        """Not verified: that is for whoever reads it, by the fingerprint."""
        way = probes.Way(replace(settings.REDIS, cert_reqs="none"))
        if not way.policy.encrypted:
            raise CommandError("The URL is redis://: there is no certificate.", returncode=2)
        try:
            _, _, der, fields = way.shake_hands()
        except (OSError, RedisError) as error:
            text = f"No certificate from {way.host} port {way.port}: {error}"
            raise CommandError(f"{text} {way.look_closer(error)}", returncode=2) from error
        names = ", ".join(name for _, name in fields.get("subjectAltName", ()))
        self.stdout.write(
            f"# {way.host} port {way.port}: {probes.describe(fields)}\n"
            f"# Names {probes.printable(names) or '-'}\n"
            f"# SHA-256 {sha256(der).digest().hex(':').upper()}\n"
            f"# Compare the fingerprint with the server's, asked for in another way.\n"
            + ssl.DER_cert_to_PEM_cert(der).strip()
        )
