"""The policy of a Redis URL: what is accepted, what is refused, and in which words."""

import os
import socket
from typing import Any

import redis
from django.test import SimpleTestCase

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
        names = ("red-abc", "x.railway.internal", "redis.ns.svc", "redis.ns.svc.cluster.local")
        names += ("redis.lan", "redis.home.arpa", "Redis.Corp", "redis.localhost")
        for host in (*names, "10.1.2.3", "[fd12::1]", "127.0.0.1", "169.254.1.2"):
            with self.subTest(host):
                self.assertFalse(policy(f"redis://{host}:6379").encrypted)

    def test_a_host_that_is_not_known_to_be_private_needs_tls_or_permission(self):
        """Carriers and VPNs share 100.64.0.0/10, and names below ts.net are public (D-86)."""
        for host in ("8.8.8.8", "100.101.102.103", "redis.tail1234.ts.net", "svc.example.com"):
            with self.subTest(host):
                with self.assertRaises(InvalidSettings) as caught:
                    policy(f"redis://:s3cret@{host}:6379")
                self.assertIn(f"{host}, which is not known to be private", str(caught.exception))
                policy(f"redis://:s3cret@{host}:6379", plaintext_hosts=["100.*", "*.*"])

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
            ("unix:///run/s3cret.sock", {}, "Unix sockets are not supported"),
            ("redis+socket:///run/s3cret.sock", {}, "Unix sockets are not supported"),
            ("sentinel://:s3cret@h:26379;sentinel://h2", {}, "Sentinel is not supported"),
            ("redis+sentinel://:s3cret@h:26379/s3", {}, "Sentinel is not supported"),
            ("rediss+cluster://:s3cret@h", {}, "clusters are not supported"),
            ("django-db", {}, "other stores of results are not supported"),
            ("db+postgresql://u:s3cret@h/d", {}, "other stores of results are not supported"),
            ("rpc://", {}, "other stores of results are not supported"),
            ("redis-cli -u redis://:s3cret@h", {}, "give the URL alone"),
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
            ("rediss://h", {"ca_certs": PEM.replace("\n", " ")}, "has lost its line ends"),
            ("rediss://h", {"ca_certs": PEM.replace("\n", "")}, "has lost its line ends"),
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
