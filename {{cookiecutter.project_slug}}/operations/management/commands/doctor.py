import json
import socket
import ssl
import sys
import time
from hashlib import sha256

from django.core.management.base import BaseCommand

from operations import probes


class Command(BaseCommand):
    help = (
        "Goes the way to Redis and through a worker, step by step, and says where it ends."
        " Exit status: 0 healthy, 1 a probe failed, 2 the doctor could not run."
    )

    def add_arguments(self, parser):
        parser.add_argument("--json", action="store_true", help="print one JSON object")
        parser.add_argument(
            "--wait",
            type=float,
            default=0,
            metavar="SECONDS",
            help="try again until all is well, for at most so long",
        )
        parser.add_argument(
            "--certificate",
            action="store_true",
            help="print the certificate that the server presents, unverified, for REDIS_CA_CERTS",
        )

    def handle(self, **options):
        if options["certificate"]:
            return self.print_certificate()
        deadline = time.monotonic() + options["wait"]
        results = []
        while True:
            for result in probes.run(probes.Path().probes()):
                results.append(result)
                if not options["json"]:
                    self.print_result(result)
            healthy = all(result.state in ("ok", "warn") for result in results)
            if healthy or time.monotonic() >= deadline:
                break
            time.sleep(1)
            results.clear()
        if options["json"]:
            report = {"healthy": healthy, "probes": [vars(result) for result in results]}
            self.stdout.write(json.dumps(report, indent=2))
        if not healthy:
            sys.exit(1)

    def print_result(self, result: probes.Result):
        self.stdout.write(
            f"{result.name:<12}{result.state.replace('fail', 'FAIL'):<13}{result.seen}"
        )
        if result.fix:
            self.stdout.write(f"{'':<12}{'to do:':<13}{result.fix}")

    def print_certificate(self):
        """Not verified: that is for whoever reads it, by the fingerprint."""
        path = probes.Path()
        if not path.policy.encrypted:
            self.fail("the URL is redis://: there is no certificate to print.")
        try:
            pem = ssl.get_server_certificate((path.host, path.port), timeout=5)
            certificate = presented(path, pem)
        except OSError as error:
            self.fail(f"no certificate from {path.host} port {path.port}: {error}")
        fingerprint = sha256(ssl.PEM_cert_to_DER_cert(pem)).digest().hex(":").upper()
        self.stdout.write(
            f"# {path.host} port {path.port}: {probes.describe(certificate)}\n"
            f"# SHA-256 {fingerprint}\n"
            f"# Compare the fingerprint with your provider's before you trust it.\n{pem.strip()}"
        )

    def fail(self, message: str):
        self.stderr.write(f"doctor: {message}")
        sys.exit(2)


def presented(path: probes.Path, pem: str) -> dict:
    """The certificate's fields; a handshake that trusts only it shows that it can be pinned."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.load_verify_locations(cadata=pem)
    if path.policy.certfile:
        context.load_cert_chain(path.policy.certfile, path.policy.keyfile)
    with socket.create_connection((path.host, path.port), timeout=5) as sock:
        return context.wrap_socket(sock, server_hostname=path.host).getpeercert()
