"""What the diagnosis makes of a server's answers; the doctor's other causes need a real Redis."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from unittest import TestCase, mock

import redis

from redis_connection import diagnosis, hints
from redis_connection.diagnosis import ProbeFailed, RedisDiagnosis
from redis_connection.handshake import ServerCertificate
from redis_connection.policy import Policy

from .answering import answering


@contextlib.contextmanager
def hanging_up() -> Iterator[int]:
    """The port of a server that ends each connection at once."""

    def serve():
        with contextlib.suppress(OSError):  # the test has ended
            while True:
                listener.accept()[0].close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)  # wakes accept(), unlike close()


def named(subject: str, days: float = 30) -> ServerCertificate:
    end = time.strftime("%b %d %H:%M:%S %Y GMT", time.gmtime(time.time() + days * 86400))
    name = ((("commonName", subject),),)
    fields = {"subject": name, "issuer": name, "notAfter": end}
    return ServerCertificate(b"", fields | {"subjectAltName": (("DNS", subject),)})


class HintTests(TestCase):
    def test_what_is_special_counts_before_what_is_general(self):
        for text, words in (
            ("self-signed certificate in certificate chain", "must hold the CA"),
            ("self-signed certificate", "has a new certificate"),
            ("unknown command `SELECT`, with args", "/0"),
            ("unknown command `HELLO`, with args", "Redis 6"),
            ("SSLV3_ALERT_CERTIFICATE_EXPIRED", "Renew the certificate in REDIS_CLIENT_CERT"),
            ("SSLV3_ALERT_BAD_CERTIFICATE", "refuses REDIS_CLIENT_CERT"),
            ("AuthenticationError AUTH called, but no password is set", "has no password"),
            ("The read timed out after used memory > 'maxmemory'", "memory is full"),
        ):
            self.assertIn(words, hints.hint_for(text))

    def test_every_hint_can_be_reached(self):
        """None stands behind a more general one that takes its texts."""
        for hint in hints.HINTS:
            for part in hint.pattern.split("|"):
                self.assertEqual(hints.hint_for(part), hint.text, part)

    def test_the_class_of_an_error_tells_what_its_text_lacks(self):
        error = redis.exceptions.ClusterDownError("Hash slot not served")
        self.assertIn("cluster is not complete", hints.hint_for_error(error))
        self.assertEqual(hints.hint_for_error(ValueError("odd")), hints.UNKNOWN)


class CertificateTests(TestCase):
    def test_it_cannot_write_over_the_terminal(self):
        certificate = named("a\x1b[2J\nb")
        self.assertIn("subject a[2Jb, issuer a[2Jb, expires ", str(certificate))
        self.assertEqual(certificate.hosts, ["a[2Jb"])

    def test_one_that_cannot_be_read_counts_as_expired(self):
        certificate = ServerCertificate(b"", {})
        self.assertLess(certificate.days_left, -1e9)
        self.assertIn("cannot be read", str(certificate))
        self.assertIn("cannot be read", diagnosis.renew(certificate))
        self.assertAlmostEqual(named("a", days=30).days_left, 30, places=1)


class StepTests(TestCase):
    def diagnosis_of(self, port: int, scheme: str = "redis", **options) -> RedisDiagnosis:
        return RedisDiagnosis(Policy(f"{scheme}://:s3cret@127.0.0.1:{port}/3"), **options)

    def test_a_server_that_is_well_passes_all_steps(self):
        info = b"maxmemory_policy:noeviction\r\nused_memory:1048576\r\nconnected_clients:1\r\n"
        with answering(INFO=b"$%d\r\n%s\r\n" % (len(info), info)) as server:
            found = self.diagnosis_of(server.port, connection_limit=20, key="{x}:key")
            self.assertEqual(found.resolve(), "127.0.0.1 is 127.0.0.1")
            self.assertEqual(found.connect(), f"127.0.0.1 port {server.port} answers")
            self.assertEqual(found.handshake(), "plain text, not encrypted")
            self.assertEqual(found.auth(), "accepted as default")
            self.assertRegex(found.ping(), "PONG after [0-9]+ ms")
            self.assertEqual(found.eviction(), "noeviction")
            self.assertEqual(found.memory(), "1.0 MiB used, no limit set")
            self.assertEqual(found.connections(), "1 of 20 used")
            # Until here it used database 0: whether the URL's own exists is a step of its own.
            self.assertNotIn(["SELECT", "3"], server.commands)
            self.assertEqual(found.database(), "number 3 can be selected")
            self.assertEqual(found.write(), "accepted")
        self.assertIn(["SELECT", "3"], server.commands)
        self.assertIn(["LPUSHX", "{x}:key", ""], server.commands)

    def test_a_server_that_refuses_the_password(self):
        refusal = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"
        with (
            answering(HELLO=refusal, AUTH=refusal) as server,
            self.assertRaises(ProbeFailed) as failed,
        ):
            self.diagnosis_of(server.port).auth()
        self.assertIn("USER:PASSWORD@", failed.exception.hint)
        self.assertNotIn("s3cret", failed.exception.detail)

    def test_a_server_that_tells_nothing_about_itself(self):
        with answering(INFO=b"-NOPERM no permissions to run the 'info' command\r\n") as server:
            found = self.diagnosis_of(server.port)
            self.assertEqual([found.memory(), found.connections()], ["unknown", "unknown"])
            with self.assertRaises(ProbeFailed) as failed:
                found.eviction()
        self.assertEqual(failed.exception.state, "warn")

    def test_plain_text_that_an_operator_has_allowed_is_worth_a_warning(self):
        policy = Policy("redis://redis.example.com")
        detail = RedisDiagnosis(policy).handshake()
        self.assertIn("as DEBUG or settings.py allows", detail)
        with self.assertRaises(ProbeFailed) as failed:
            RedisDiagnosis(policy, plaintext_allowed=True).handshake()
        self.assertEqual((failed.exception.state, failed.exception.hint), ("warn", hints.PLAINTEXT))

    def test_an_error_is_shown_in_one_line(self):
        self.assertEqual(ProbeFailed("a\n  b", "hint").detail, "a b")


class CloserLookTests(TestCase):
    """At a connection that ended without a word."""

    def setUp(self):
        patch = mock.patch.object(diagnosis, "LISTEN", 0.2)
        patch.start()
        self.addCleanup(patch.stop)

    def hint(self, url: str, text: str) -> str:
        return RedisDiagnosis(Policy(url)).diagnose(redis.ConnectionError(text))

    def test_a_port_that_answers_a_plain_ping_does_not_speak_tls(self):
        with answering() as server:
            hint = self.hint(f"rediss://127.0.0.1:{server.port}", "Connection closed by server.")
        self.assertEqual(hint, hints.NOT_TLS)
        self.assertEqual(server.commands, [["PING"]])

    def test_a_port_that_ends_every_connection_has_none_left(self):
        with hanging_up() as port:
            hint = self.hint(f"rediss://127.0.0.1:{port}", "EOF occurred")
        self.assertEqual(hint, hints.FULL)

    def test_a_plain_port_that_hangs_up_on_tls_as_well_tells_no_more(self):
        with hanging_up() as port:
            hint = self.hint(f"redis://127.0.0.1:{port}", "Connection closed by server.")
        self.assertEqual(hint, hints.ENDED)

    def test_an_error_that_says_enough_needs_no_second_connection(self):
        with answering() as server:
            hint = self.hint(f"rediss://127.0.0.1:{server.port}", "MISCONF errors writing")
        self.assertIn("cannot save its data", hint)
        self.assertEqual(server.most, 0)
