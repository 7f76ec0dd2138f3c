import os
import stat
import tempfile
from importlib import import_module
from pathlib import Path
from unittest import mock

import redis
from django.test import SimpleTestCase

environment = import_module("{{ cookiecutter.project_slug }}.environment")
redis_tls = import_module("{{ cookiecutter.project_slug }}.redis_tls")

DEFAULTS = {
    "REDIS_CERT_REQS": "required",
    "REDIS_CHECK_HOSTNAME": "true",
    "REDIS_DATABASES": "16",
}


def policy(url, production=True, **variables):
    with mock.patch.dict(os.environ, {"REDIS_URL": url} | variables, clear=True):
        env = environment.Environment(Path("no-such-file"), DEFAULTS)
        return redis_tls.from_environment(env, "REDIS_URL", production=production)


class PolicyTests(SimpleTestCase):
    def test_a_verified_policy_is_the_same_for_celery_and_for_other_clients(self):
        found = policy("rediss://:secret@redis.example.com:6380/3")
        for options in (found.celery(), found.client()):
            self.assertEqual(options["ssl_cert_reqs"], "required")
            self.assertIs(options["ssl_check_hostname"], True)
            self.assertNotIn("redis_connect_func", options)
        redis.Redis.from_url(found.url, **found.client())  # redis-py knows every option

    def test_a_plain_url_gives_celery_none_and_never_a_dict(self):
        self.assertIsNone(policy("redis://localhost:6379/0").celery())

    def test_urls_are_normalised(self):
        for given, expected in {
            "valkey://localhost:6379": "redis://localhost:6379/",
            "valkeys://h:1/2\n": "rediss://h:1/2",
            "  rediss://u:p%40ss@h:1  ": "rediss://u:p%40ss@h:1/",
            "redis://[::1]:6379/0": "redis://[::1]:6379/0",
            "rediss://h:1/0?ssl_cert_reqs=CERT_REQUIRED": "rediss://h:1/0",
        }.items():
            with self.subTest(given):
                self.assertEqual(policy(given).url, expected)

    def test_private_hosts_may_be_reached_in_plain_text(self):
        for host in ("red-abc", "x.railway.internal", "10.1.2.3", "[fd12::1]", "127.0.0.1"):
            with self.subTest(host):
                self.assertFalse(policy(f"redis://{host}:6379").encrypted)
        self.assertFalse(policy("redis://h.net", REDIS_ALLOW_PLAINTEXT="*.com,h.net").encrypted)
        self.assertFalse(policy("redis://h.net", production=False).encrypted)

    def test_what_cannot_work_is_refused_in_one_line_without_the_password(self):
        for url, variables, reason in (
            ("redis://:s3cret@h.example.com", {}, "plain redis://"),
            ("redis://:s3/cret@h", {}, "percent-encode"),
            ("redis://:s3#cret@h", {}, "percent-encode"),
            ("reddis://:s3cret@h", {}, "does not start with"),
            ("'redis://:s3cret@h'", {}, "does not start with"),
            (":s3cret@h:6379", {}, "does not start with"),
            ("rediss://:s3cret@h:99999", {}, "between 1 and 65535"),
            ("rediss://:s3cret@:6379", {}, "needs a host"),
            ("rediss://:s3cret@h/abc", {}, "database"),
            ("rediss://:s3cret@h/16", {}, "0 to 15"),
            ("rediss://:s3cret@h?ssl_cert_reqs=none", {}, "would win"),
            ("rediss://:s3cret@h?ssl_ca_certs=x", {}, "REDIS_CA_CERTS"),
            ("rediss://:s3cret@h?socket_timeout=1", {}, "would win"),
            ("rediss://:s3cret@h", {"REDIS_CERT_REQS": "strict"}, "not one of"),
            ("rediss://:s3cret@h", {"REDIS_CHECK_HOSTNAME": "false"}, "needs REDIS_CA_CERTS"),
            ("rediss://:s3cret@h", {"REDIS_CHECK_HOSTNAME": "maybe"}, "neither true nor false"),
            ("rediss://:s3cret@h", {"REDIS_CA_CERTS": "/no/such/ca"}, "/no/such/ca"),
            ("rediss://:s3cret@h", {"REDIS_CA_CERTS": os.devnull}, "not usable PEM"),
            ("rediss://:s3cret@h", {"REDIS_CLIENT_CERT": "/cert"}, "go together"),
            ("", {}, "is not set"),
        ):
            with self.subTest(url), self.assertRaises(environment.Refused) as caught:
                policy(url, **variables)
            message = str(caught.exception)
            self.assertIn(reason, message)
            self.assertNotIn("s3", message)
            self.assertNotIn("\n", message)

    def test_none_connects_to_anybody_and_says_so(self):
        found = policy("rediss://h", REDIS_CERT_REQS="none")
        self.assertFalse(found.verified)
        self.assertIs(found.celery()["ssl_check_hostname"], False)
        self.assertIn("not verified", str(found))

    def test_the_password_is_not_shown(self):
        self.assertNotIn("s3cret", repr(policy("rediss://:s3cret@h")))


class PinTests(SimpleTestCase):
    """REDIS_CA_CERTS without the host name check: redis-py alone would accept any public CA."""

    def setUp(self):
        self.pem = (
            "-----BEGIN CERTIFICATE-----\nVEhFIEdJVkVOIENFUlRJRklDQVRF\n-----END CERTIFICATE-----\n"
        )
        with tempfile.NamedTemporaryFile("w", suffix=".pem", delete=False) as file:
            file.write("# two may be given, the old and the new\n" + self.pem)
        self.addCleanup(os.unlink, file.name)
        self.policy = redis_tls.RedisTLS("rediss://h", check_hostname=False, ca_certs=file.name)

    def connect(self, *chain):
        connection = mock.Mock()
        connection._sock.get_verified_chain.return_value = list(chain)
        self.policy.celery()["redis_connect_func"](connection)
        return connection

    def test_the_password_is_sent_when_the_chain_holds_a_given_certificate(self):
        self.connect(b"a leaf", b"THE GIVEN CERTIFICATE").on_connect.assert_called_once_with()

    def test_nothing_is_sent_to_anybody_else(self):
        with self.assertRaisesMessage(redis.ConnectionError, "not issued by REDIS_CA_CERTS"):
            self.connect(b"a leaf", b"a public CA")

    def test_pem_text_becomes_a_file_for_this_user_alone(self):
        path = redis_tls.pem_files.path_of(self.pem.replace("\n", "\\n"))
        self.assertEqual(Path(path).read_text().strip(), self.pem.strip())
        self.assertEqual(stat.S_IMODE(os.stat(path).st_mode), 0o600)
