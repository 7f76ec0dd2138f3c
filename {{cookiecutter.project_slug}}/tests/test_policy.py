"""The policy of a Redis URL: what is accepted, what is refused, and in which words."""

import os
import socket
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import redis
from django.test import SimpleTestCase

from config.environment import Environment
from redis_connection.errors import InvalidSettings
from redis_connection.policy import Policy, read_policy

PEM = "-----BEGIN CERTIFICATE-----\nVEhFIEdJVkVOIENFUlRJRklDQVRF\n-----END CERTIFICATE-----\n"


def policy(url: str, **settings) -> Policy:
    """The policy of a URL in production, with `settings` in place of the strict ones."""
    strict: dict[str, Any] = {
        "cert_reqs": "required",
        "check_hostname": True,
        "databases": 16,
        "plaintext_hosts": [],
    }
    return read_policy("REDIS_URL", url, **strict | settings)


class PolicyTests(SimpleTestCase):
    def test_a_verified_policy_is_the_same_for_celery_and_for_other_clients(self):
        found = policy("rediss://:secret@redis.example.com:6380/3")
        self.assertEqual(found.celery()["ssl_cert_reqs"], "required")
        self.assertIs(found.celery()["ssl_check_hostname"], True)
        self.assertEqual(found.client()["trust"], found.trust)
        redis.Redis.from_url(found.url, **found.client())  # redis-py knows every option
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            tcp = found.client()["socket_keepalive_options"]
            self.assertEqual(tcp[socket.TCP_USER_TIMEOUT], 20_000)
        self.assertNotIn("secret", repr(found))

    def test_a_plain_url_gives_celery_none_and_never_a_dict(self):
        self.assertIsNone(policy("redis://localhost:6379/0").celery())

    def test_urls_are_normalised(self):
        for given, expected in {
            "valkey://localhost:6379": "redis://localhost:6379/",
            "valkeys://h:1/2": "rediss://h:1/2",
            "rediss://u:p%40ss@h:1": "rediss://u:p%40ss@h:1/",
            "redis://[::1]:6379/0": "redis://[::1]:6379/0",
            "rediss://:p;w@h:1/0": "rediss://:p%3Bw@h:1/0",
            "rediss://h:1/0?ssl_cert_reqs=CERT_REQUIRED": "rediss://h:1/0",
        }.items():
            with self.subTest(given):
                self.assertEqual(policy(given).url, expected)

    def test_private_hosts_may_be_reached_in_plain_text(self):
        for host in ("red-abc", "x.railway.internal", "10.1.2.3", "[fd12::1]", "127.0.0.1"):
            with self.subTest(host):
                self.assertFalse(policy(f"redis://{host}:6379").encrypted)

    def test_a_public_host_may_be_named(self):
        for hosts in (["*.com", "H.net"], ["true"], None):
            with self.subTest(hosts):
                self.assertFalse(policy("redis://h.net", plaintext_hosts=hosts).encrypted)

    def test_what_cannot_work_is_refused_in_one_line_without_the_password(self):
        for url, settings, reason in (
            ("redis://:s3cret@h.example.com", {}, "plain redis://"),
            ("redis://:s3/cret@h", {}, "percent-encode"),
            ("redis://:s3#cret@h", {}, "percent-encode"),
            ("reddis://:s3cret@h", {}, "copy the URL"),
            ("'redis://:s3cret@h'", {}, "remove the quotes"),
            (":s3cret@h:6379", {}, "put one before it"),
            ("rediss://:s3cret@h:99999", {}, "between 1 and 65535"),
            ("rediss://:s3cret@:6379", {}, "needs a host"),
            ("rediss://:s3cret@h/abc", {}, "number of a database"),
            ("rediss://:s3cret@h/16", {}, "0 to 15"),
            ("rediss://:s3cret@h/1", {"databases": 1}, "says 0 only"),
            ("rediss://:s3cret@h?ssl_cert_reqs=none", {}, "would win"),
            ("rediss://:s3cret@h?ssl_ca_certs=x", {}, "REDIS_CA_CERTS"),
            ("rediss://:s3cret@h?socket_timeout=1", {}, "would win"),
            ("rediss://:s3cret@h", {"check_hostname": False}, "needs REDIS_CA_CERTS"),
            ("rediss://:s3cret@h", {"ca_certs": "/no/such ca.pem"}, "/no/such ca.pem"),
            ("rediss://:s3cret@h", {"ca_certs": os.devnull}, "it is not a file"),
            ("rediss://:s3cret@h", {"ca_certs": "s3cret" * 1000}, "cannot be read"),
            ("rediss://:s3cret@h", {"client_cert": PEM}, "go together"),
            ("redis://:s3cret@134744072", {}, "plain redis://"),
            ("redis://:s3cret@evil%2Ecom", {}, "needs a host"),
            ("redis://:s3cret@evil\u3002com", {}, "needs a host"),
            ("rediss://h", {"client_cert": PEM, "client_key": "/s3.t"}, "be read"),
            ("", {}, "is not set"),
        ):
            with self.subTest(url, **settings), self.assertRaises(InvalidSettings) as caught:
                policy(url, **settings)
            [message] = caught.exception.problems
            self.assertIn(reason, message)
            self.assertNotIn("s3", message)
            self.assertNotIn("\n", message)

    def test_all_that_is_wrong_is_said_at_once(self):
        wrong = {"ca_certs": "/no/such.pem", "client_key": "/no/such.key", "databases": 1}
        with self.assertRaises(InvalidSettings) as caught:
            policy("redis://h.example.com/7?x=1", **wrong)
        self.assertEqual(len(caught.exception.problems), 5, caught.exception)

    def test_none_connects_to_anybody_and_says_so(self):
        found = policy("rediss://h", cert_reqs="none")
        self.assertFalse(found.verified)
        self.assertIs(found.celery()["ssl_check_hostname"], False)
        self.assertIn("not verified", str(found))
        for url in ("rediss://h", "redis://h"):
            ignored = Policy(url, "none", ca_certs="/ca.pem")
            self.assertIn("although REDIS_CA_CERTS is set", str(ignored))


class EnvironmentTests(SimpleTestCase):
    DEFAULTS = {
        "REDIS_CERT_REQS": "required",
        "REDIS_CHECK_HOSTNAME": "true",
        "REDIS_DATABASES": "16",
    }

    def environment(self, dotenv: str = "", **variables: str) -> Environment:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, ".env")
            if dotenv:
                path.write_text(dotenv)
            with mock.patch.dict(os.environ, variables, clear=True):
                return Environment(path, self.DEFAULTS)

    def test_an_empty_variable_counts_as_not_set(self):
        env = self.environment(REDIS_DATABASES=" ", REDIS_CERT_REQS="")
        self.assertEqual(env.integer("REDIS_DATABASES"), 16)
        self.assertEqual(env.choice("REDIS_CERT_REQS", ("required", "none")), "required")
        self.assertEqual(env.problems, [])

    def test_a_dotenv_file_is_read_as_it_is_written(self):
        env = self.environment(
            "# a comment\n\nA=1\nexport B=\"two words\"\nC='$x'\nD=$x\nE=a#b\n"
            "F='two\nlines'\n\nG=\n",
            A="wins",
        )
        self.assertEqual(env.problems, [])
        values = [env.text(name) for name in "ABCDEFG"]
        self.assertEqual(values, ["wins", "two words", "$x", "$x", "a#b", "two\nlines", ""])

    def test_an_empty_line_leaves_the_variable_to_a_later_one(self):
        for empty in ("A=", "A= ", "A=''", 'A=""', "A= # here", "export A=", "\ufeffA=", "A=\r"):
            with self.subTest(empty):
                env = self.environment(f"{empty}\nA=1\n")
                self.assertEqual((env.text("A"), env.problems), ("1", []))

    def test_an_empty_variable_of_the_process_hides_that_of_the_file(self):
        """Such as the DEBUG=true of a file that was copied along."""
        self.assertEqual(self.environment("A=1\n", A="").text("A"), "")

    def test_what_no_environment_can_have_is_a_line_that_cannot_be_read(self):
        env = self.environment("A=1\nB=a\0b\n'C=D'=1\n")
        self.assertEqual([problem[:6] for problem in env.problems], ["Line 2", "Line 3"])

    def test_a_folder_in_place_of_the_file_is_refused(self):
        with tempfile.TemporaryDirectory() as folder:
            self.assertIn("is not a file", Environment(Path(folder), {}).problems[0])

    def test_a_line_that_cannot_be_read_is_named_by_its_number(self):
        env = self.environment("A=1\n\n  \nthis is s3cret\nB='2'\ns3cret\n'no end of s3cret\n")
        self.assertEqual(
            [problem[:14] for problem in env.problems],
            [
                "Line 4 of .env",
                "Line 6 of .env",
                "Line 7 of .env",
            ],
        )
        self.assertNotIn("s3", "".join(env.problems))
        self.assertEqual(env.text("B"), "2")

    def test_all_that_is_wrong_is_said_at_once_and_ends_with_status_2(self):
        env = self.environment(
            REDIS_URL="http://s3cret",
            REDIS_CERT_REQS="s3cret",
            REDIS_CHECK_HOSTNAME="s3cret",
            REDIS_DATABASES="s3cret",
            A="s3cret",
            B="s3cret",
            C="-1",
        )
        env.redis_policy("REDIS_URL", production=True)
        env.redis_policy("REDIS_URL", production=True)
        self.assertIs(env.boolean("A"), False)
        self.assertEqual(env.choice("B", ("one", "two"), default="one"), "one")
        self.assertEqual(env.integer("C", minimum=1), 1)
        with mock.patch("sys.stderr") as stderr, self.assertRaises(SystemExit) as end:
            env.exit_if_wrong()
        self.assertEqual(end.exception.code, 2)
        written = "".join(call.args[0] for call in stderr.write.call_args_list)
        names = [line.split()[0] for line in written.splitlines()]
        redis_names = ["REDIS_CERT_REQS", "REDIS_CHECK_HOSTNAME", "REDIS_DATABASES", "REDIS_URL"]
        self.assertEqual(names, [*redis_names, "A", "B", "C"])
        self.assertNotIn("s3", written)

    def test_nothing_wrong_goes_on(self):
        env = self.environment(REDIS_URL=" rediss://:p@h:1 \n", DEBUG="TRUE")
        self.assertEqual(env.redis_policy("REDIS_URL", production=True).url, "rediss://:p@h:1/")
        self.assertIs(env.boolean("DEBUG"), True)
        env.exit_if_wrong()
        self.assertEqual(env.problems, [])
