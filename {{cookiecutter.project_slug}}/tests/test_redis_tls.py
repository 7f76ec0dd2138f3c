import os
import socket
from pathlib import Path
from unittest import mock

import redis
from django.test import SimpleTestCase

from config import environment, redis_tls

DEFAULTS = {"REDIS_CERT_REQS": "required", "REDIS_CHECK_HOSTNAME": "true", "REDIS_DATABASES": "16"}
PEM = "-----BEGIN CERTIFICATE-----\nVEhFIEdJVkVOIENFUlRJRklDQVRF\n-----END CERTIFICATE-----\n"


def policy(url, production=True, **variables):
    with mock.patch.dict(os.environ, {"REDIS_URL": url} | variables, clear=True):
        env = environment.Environment(Path("no-such-file"), DEFAULTS)
        return redis_tls.from_environment(env, "REDIS_URL", production=production)


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
            "valkeys://h:1/2\n": "rediss://h:1/2",
            "  rediss://u:p%40ss@h:1  ": "rediss://u:p%40ss@h:1/",
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
        self.assertFalse(policy("redis://h.net", REDIS_ALLOW_PLAINTEXT="*.com,H.net").encrypted)
        self.assertFalse(policy("redis://h.net", production=False).encrypted)

    def test_what_cannot_work_is_refused_in_one_line_without_the_password(self):
        for url, variables, reason in (
            ("redis://:s3cret@h.example.com", {}, "plain redis://"),
            ("redis://:s3/cret@h", {}, "percent-encode"),
            ("redis://:s3#cret@h", {}, "percent-encode"),
            ("reddis://:s3cret@h", {}, "copy the URL"),
            ("'redis://:s3cret@h'", {}, "remove the quotes"),
            (":s3cret@h:6379", {}, "put one before it"),
            ("rediss://:s3cret@h:99999", {}, "between 1 and 65535"),
            ("rediss://:s3cret@:6379", {}, "needs a host"),
            ("rediss://:s3cret@h/abc", {}, "database"),
            ("rediss://:s3cret@h/16", {}, "0 to 15"),
            ("rediss://:s3cret@h/1", {"REDIS_DATABASES": "1"}, "says 0 only"),
            ("rediss://:s3cret@h", {"REDIS_DATABASES": "s3cret"}, "at least 1"),
            ("rediss://:s3cret@h?ssl_cert_reqs=none", {}, "would win"),
            ("rediss://:s3cret@h?ssl_ca_certs=x", {}, "REDIS_CA_CERTS"),
            ("rediss://:s3cret@h?socket_timeout=1", {}, "would win"),
            ("rediss://:s3cret@h", {"REDIS_CERT_REQS": "s3cret"}, "not one of"),
            ("rediss://:s3cret@h", {"REDIS_CHECK_HOSTNAME": "false"}, "needs REDIS_CA_CERTS"),
            ("rediss://:s3cret@h", {"REDIS_CHECK_HOSTNAME": "s3cret"}, "neither true nor false"),
            ("rediss://:s3cret@h", {"REDIS_CA_CERTS": "/no/such ca.pem"}, "/no/such ca.pem"),
            ("rediss://:s3cret@h", {"REDIS_CA_CERTS": os.devnull}, "it is no file"),
            ("rediss://:s3cret@h", {"REDIS_CLIENT_CERT": PEM}, "go together"),
            ("redis://:s3cret@134744072", {}, "plain redis://"),
            ("redis://:s3cret@evil%2Ecom", {}, "needs a host"),
            ("redis://:s3cret@evil\u3002com", {}, "needs a host"),
            ("rediss://h", {"REDIS_CLIENT_CERT": PEM, "REDIS_CLIENT_KEY": "/s3.t"}, "be read"),
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
        for url in ("rediss://h", "redis://h"):
            ignored = redis_tls.Policy(url, "none", ca_certs="/ca.pem")
            self.assertIn("although REDIS_CA_CERTS is set", str(ignored))
