import json
import socket
import ssl
import sys
import time
from hashlib import sha256

from django.core.management.base import BaseCommand, CommandError

from operations import probes


class Command(BaseCommand):
    help = (
        "Goes the way to Redis and through a worker, step by step, and says where it ends."
        " Exit status: 0 healthy, 1 a probe failed, 2 the doctor could not run."
    )

    def add_arguments(self, parser):
        parser.add_argument("--json", action="store_true", help="print one JSON object")
        wait = "try again until all is well, for at most so long"
        parser.add_argument("--wait", type=float, default=0, metavar="SECONDS", help=wait)
        pem = "print the server's certificate, which is not verified then, for REDIS_CA_CERTS"
        parser.add_argument("--certificate", action="store_true", help=pem)

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
        state = result.state.replace("fail", "FAIL")
        self.stdout.write(f"{result.name:<12}{state:<13}{result.seen}")
        if result.fix:
            self.stdout.write(f"{'':<12}{'to do:':<13}{result.fix}")

    def print_certificate(self):
        """Not verified: that is for whoever reads it, by the fingerprint."""
        path = probes.Path()
        if not path.policy.encrypted:
            raise CommandError("The URL is redis://: there is no certificate.", returncode=2)
        try:
            pem = ssl.get_server_certificate((path.host, path.port), timeout=5)
            certificate = presented(path, pem)
        except OSError as error:
            text = f"No certificate from {path.host} port {path.port}: {error}"
            raise CommandError(text, returncode=2) from error
        fingerprint = sha256(ssl.PEM_cert_to_DER_cert(pem)).digest().hex(":").upper()
        self.stdout.write(
            f"# {path.host} port {path.port}: {probes.describe(certificate)}\n"
            f"# SHA-256 {fingerprint}\n"
            f"# Compare the fingerprint with your provider's before you trust it.\n{pem.strip()}"
        )


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
