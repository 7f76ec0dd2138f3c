"""ALLOWED_HOSTS, DATABASE_URL, EMAIL_URL and DEFAULT_FROM_EMAIL: accepted as what, or refused."""

import os
import tempfile
from collections.abc import Callable
from typing import Any
from unittest import mock

from django.http.request import split_domain_port, validate_host
from django.test import SimpleTestCase

from config.database_url import read_database_url
from config.email_url import read_address, read_email_url
from config.hosts import read_development_host, read_host
from redis_connection.errors import InvalidSetting


class Refusals(SimpleTestCase):
    def assert_refused(self, read: Callable[[str, str], Any], given: str, reason: str) -> None:
        """In one line that names the variable, says this, and shows nothing of the secret."""
        with self.subTest(given):
            with self.assertRaises(InvalidSetting) as caught:
                read("VARIABLE", given)
            message = str(caught.exception)
            self.assertTrue(message.startswith("VARIABLE "), message)
            self.assertIn(reason, message)
            self.assertNotIn("s3c", message.lower())
            self.assertNotIn("\n", message)


class HostTests(Refusals):
    def test_an_entry_lets_in_the_requests_that_it_means(self):
        for given, host in {
            "example.com": "example.com",
            "WWW.Example.com": "www.example.com:443",
            "example.com.": "example.com.",
            ".example.com": "shop.example.com",
            "localhost": "localhost:8000",
            "192.0.2.7": "192.0.2.7",
            "[2001:db8::1]": "[2001:db8::1]:8000",
            "xn--bcher-kva.example": "xn--bcher-kva.example",
            "example.com:8443": "example.com",
            "a.b-c.d": "a.b-c.d",
            "x" * 63 + ".example": "x" * 63 + ".example",
        }.items():
            with self.subTest(given):
                found = read_host("VARIABLE", given)
                domain, _ = split_domain_port(host)
                self.assertTrue(validate_host(domain, [found.name]))
                self.assertFalse(validate_host("evil.example", [found.name]))

    def test_forms_are_taken_from_a_port_that_is_given(self):
        for given, origin in {
            "example.com:8443": "https://example.com:8443",
            "[::1]:8443": "https://[::1]:8443",
            "example.com:443": None,
            "example.com": None,
            ".example.com": None,
        }.items():
            with self.subTest(given):
                self.assertEqual(read_host("VARIABLE", given).origin, origin)

    def test_what_no_request_can_match_is_refused(self):
        no_name = "no host name: write names only"
        for given, reason in {
            "https://s3cret.example": no_name,
            "s3cret.example www.example.com": no_name,
            '["s3cret.example"': no_name,
            '"s3cret.example"': no_name,
            "s3cret.example/": no_name,
            "s3cret_host.example": no_name,
            "s3cret..example": no_name,
            "-s3cret.example": no_name,
            "s3cret@example.com": no_name,
            "bücher.s3cret": no_name,
            "2001:db8::1": "in brackets",
            "[s3cret]": no_name,
            "[1.2.3.4]": no_name,
            ".": no_name,
            ("x" * 63 + ".") * 4 + "s3cret": no_name,
            "*.s3cret.example": "write .example.com",
            "*": "the host of links",
            ".s3cret.example:8443": "a port that cannot be",
            "s3cret.example:99999": "a port that cannot be",
        }.items():
            self.assert_refused(read_host, given, reason)

    def test_in_development_all_hosts_may_be_allowed(self):
        self.assertEqual(read_development_host("VARIABLE", "*").name, "*")


class DatabaseTests(Refusals):
    CA = __file__  # a file that can be read

    def test_what_django_gets(self):
        ordinary = {"NAME": "n", "USER": "u", "PASSWORD": "p", "HOST": "h", "PORT": "5432"}
        nobody = ordinary | {"USER": "", "PASSWORD": "", "PORT": ""}
        socket = nobody | {"HOST": "/run/postgresql"}
        for given, expected in {
            "postgres://u:p@h:5432/n": ordinary,
            "postgresql://u:p@h:5432/n": ordinary,
            "POSTGRES://u:p@h:5432/n": ordinary,
            "postgres://h/n": nobody,
            "postgres://u:p%40%2F%3Aw@h:5432/n": ordinary | {"PASSWORD": "p@/:w"},
            "postgres://u:p@w$+%@h:5432/n": ordinary | {"PASSWORD": "p@w$+%"},
            "postgres://u:p:w;,[]@h:5432/n": ordinary | {"PASSWORD": "p:w;,[]"},
            "postgres://u:pässword@h:5432/n": ordinary | {"PASSWORD": "pässword"},
            "postgres://u:p@h:5432/a%2Bb+c": ordinary | {"NAME": "a+b+c"},
            "postgres://u:p@[2001:db8::1]:5432/n": ordinary | {"HOST": "2001:db8::1"},
            "postgres://u:p@h1:5432,h2/n": ordinary | {"HOST": "h1,h2", "PORT": "5432,"},
            "postgres://u:p@h1,h2/n": ordinary | {"HOST": "h1,h2", "PORT": ""},
            "postgres://u:p@dpg-abc-a/n": ordinary | {"HOST": "dpg-abc-a", "PORT": ""},
            "postgres://u.project:p@h:5432/n": ordinary | {"USER": "u.project"},
            "postgres://%2Frun%2Fpostgresql/n": socket,
            "postgres:///n?host=/run/postgresql": socket,
            "postgres:////run/postgresql/n": socket,
            "postgres://h?dbname=n": nobody,
            "postgres://h/?dbname=n&user=u&password=p&port=5432": ordinary,
        }.items():
            with self.subTest(given):
                found = read_database_url("VARIABLE", given)
                self.assertEqual({name: found[name] for name in expected}, expected)
                self.assertEqual(found["ENGINE"], "django.db.backends.postgresql")
                self.assertEqual(found["OPTIONS"], {"connect_timeout": 5})

    def test_the_options_that_somebody_reads(self):
        for query, expected in {
            "sslmode=require": {"sslmode": "require"},
            "sslmode=require&channel_binding=require": {
                "sslmode": "require",
                "channel_binding": "require",
            },
            f"sslmode=verify-full&sslrootcert={self.CA}": {
                "sslmode": "verify-full",
                "sslrootcert": self.CA,
            },
            "connect_timeout=10": {"connect_timeout": 10},
            "options=-c%20search_path%3Dx": {"options": "-c search_path=x"},
            "application_name=a&target_session_attrs=read-write": {
                "application_name": "a",
                "target_session_attrs": "read-write",
            },
        }.items():
            with self.subTest(query):
                found = read_database_url("VARIABLE", f"postgres://u:p@h/n?{query}")
                self.assertEqual(found["OPTIONS"], {"connect_timeout": 5} | expected)

    def test_djangos_own_options_count(self):
        found = read_database_url("VARIABLE", "postgres://h/n")
        self.assertEqual((found["CONN_MAX_AGE"], found["CONN_HEALTH_CHECKS"]), (60, True))
        query = "conn_max_age=0&CONN_HEALTH_CHECKS=False&disable_server_side_cursors=true"
        found = read_database_url("VARIABLE", f"postgres://h/n?{query}")
        self.assertEqual((found["CONN_MAX_AGE"], found["CONN_HEALTH_CHECKS"]), (0, False))
        self.assertIs(found["DISABLE_SERVER_SIDE_CURSORS"], True)
        self.assertIsNone(
            read_database_url("VARIABLE", "postgres://h/n?conn_max_age=None")["CONN_MAX_AGE"]
        )

    def test_the_cas_of_the_system_are_those_of_a_file(self):
        """The OpenSSL of psycopg-binary has none of its own (D-88)."""
        paths = mock.Mock(cafile=self.CA)
        with mock.patch("ssl.get_default_verify_paths", return_value=paths):
            found = read_database_url("VARIABLE", "postgres://h/n?sslrootcert=system")
        options = {"connect_timeout": 5, "sslmode": "verify-full", "sslrootcert": self.CA}
        self.assertEqual(found["OPTIONS"], options)

    def test_sqlite_takes_any_path(self):
        for given, name in {
            "sqlite:////srv/c++/a b/db.sqlite3": "/srv/c++/a b/db.sqlite3",
            "sqlite:///db.sqlite3": "db.sqlite3",
            "sqlite:////srv/100%25/db%3F.sqlite3": "/srv/100%/db?.sqlite3",
            "sqlite://:memory:": ":memory:",
            "sqlite://": ":memory:",
        }.items():
            with self.subTest(given):
                found = read_database_url("VARIABLE", given)
                self.assertEqual(found["NAME"], name)
                self.assertEqual(found["OPTIONS"]["transaction_mode"], "IMMEDIATE")

    def test_what_cannot_work_is_refused(self):
        scheme, unknown = "neither postgres:// nor sqlite://", "PostgreSQL's client does not know"
        account, host = "raw / ? or #", "needs a host"
        for given, reason in {
            "mysql://u:s3cret@h/n": scheme,
            "postgresql+psycopg://u:s3cret@h/n": scheme,
            "u:s3cret@h/n": scheme,
            "host=h dbname=n password=s3cret": scheme,
            "'postgres://u:s3cret@h/n'": scheme,
            "postgres://u:s3cret@h/n?pgbouncer=true": unknown,
            "postgres://u:s3cret@h/n?schema=s3cret": unknown,
            "postgres://u:s3cret@h/n?SSLMODE=require": unknown,
            "postgres://u:s3cret@h/n?s3cret": unknown,
            "postgres://u:s3cret@h/n?atomic_requests=true": unknown,
            "postgres://u:s3cret@h/n?pool=true": unknown,
            "postgres://u:s3cret@h/n?ssl=true": "write sslmode=verify-full",
            "postgres://u:s3cret@h/n?sslmode=required": "needs one of disable, allow",
            "postgres://u:s3cret@h/n?sslmode=verify-full&sslrootcert=/s3cret": "cannot be read",
            "postgres://u:s3cret@h/n?sslmode=require&sslrootcert=system": "verify-full only",
            "postgres://u:s3cret@h/n?connect_timeout=s3cret": "a whole number",
            "postgres://u:s3cret@h/n?conn_max_age=s3cret": "a number of seconds",
            "postgres://u:s3cret@h/n?conn_health_checks=s3cret": "true or false",
            "postgres://u:s3cret@h/n?client_encoding=s3cret": "Django sets",
            "postgres://u:s3cret@h/n?password=s3cret": "password twice",
            "postgres://u:s3cret@h/n?sslmode=allow&sslmode=require": "sslmode twice",
            "postgres://u:s3cret@h": "the name of a database",
            "postgres://u:s3cret@h/": "the name of a database",
            "postgres://u:s3cret@h/" + "n" * 64: "at most 63 bytes",
            "postgres://u:s3cret@h/n/s3": "a / in the name",
            "postgres:///n": host,
            "postgres://u:s3cret@/n": host,
            "postgres://u:s3cret@:5432/n": host,
            "postgres://u:s3cret@h:port/n": host,
            "postgres://u:s3cret@h:99999/n": host,
            "postgres://u:s3cret@h1,,h2/n": host,
            "postgres://u:s3cret@2001:db8::1/n": host,
            "postgres://u:s3cret@[h]/n": host,
            "postgres://u:s3cret@h?port=s3cret&dbname=n": host,
            "postgres://u:s3/cret@h/n": account,
            "postgres://u:s3c?ret@h/n": account,
            "postgres://u:s3c#ret@h/n": account,
            "postgres://u:s3 cret@h/n": "a space or a line break",
            "postgres://u:s3cret%00@h/n": "zero byte",
            "postgres://u:s3cret%FF@h/n": "not UTF-8",
            "sqlite://s3cret.sqlite3": "the path of a file",
            "sqlite:////srv/s3cret/": "the path of a file",
            "sqlite:////srv/s3cret?mode=ro": "SQLite has no options",
        }.items():
            self.assert_refused(read_database_url, given, reason)

    def test_verification_without_a_ca_is_refused(self):
        given = "postgres://u:s3cret@h/n?sslmode=verify-full"
        with tempfile.TemporaryDirectory() as home, mock.patch.dict(os.environ, HOME=home):
            with mock.patch.dict(os.environ, PGSSLROOTCERT=""):
                self.assert_refused(read_database_url, given, "without a CA: add &sslrootcert")
            with mock.patch.dict(os.environ, PGSSLROOTCERT=self.CA):
                read_database_url("VARIABLE", given)


class EmailTests(Refusals):
    def test_what_django_gets(self):
        for given, expected in {
            "smtp+tls://u:p@mail.example.com:587": ("mail.example.com", 587, "u", "p", True, False),
            "smtp+tls://u:p@mail.example.com": ("mail.example.com", 587, "u", "p", True, False),
            "SMTP+TLS://u:p@Mail.example.com:2525/": (
                "mail.example.com",
                2525,
                "u",
                "p",
                True,
                False,
            ),
            "smtp+ssl://u:p@mail.example.com:465": ("mail.example.com", 465, "u", "p", False, True),
            "smtp+ssl://u:p@mail.example.com": ("mail.example.com", 465, "u", "p", False, True),
            "smtps://u:p@mail.example.com:465": ("mail.example.com", 465, "u", "p", False, True),
            "smtps://u:p@mail.example.com:587": ("mail.example.com", 587, "u", "p", True, False),
            "smtp+tls://me@example.com:p@h": ("h", 587, "me@example.com", "p", True, False),
            "smtp+tls://me%40example.com:p%2Fw@h": ("h", 587, "me@example.com", "p/w", True, False),
            "smtp+tls://apikey:SG.a_b-c@h": ("h", 587, "apikey", "SG.a_b-c", True, False),
            "smtp+tls://u:p+w=%@h": ("h", 587, "u", "p+w=%", True, False),
            "smtp://localhost": ("localhost", 25, "", "", False, False),
            "smtp://localhost:1025": ("localhost", 1025, "", "", False, False),
            "smtp://u:p@mailpit:1025": ("mailpit", 1025, "u", "p", False, False),
            "smtp://u:p@postfix.mail.svc:25": ("postfix.mail.svc", 25, "u", "p", False, False),
            "smtp://relay.example.com": ("relay.example.com", 25, "", "", False, False),
            "smtp+tls://u:p@[2001:db8::1]:587": ("2001:db8::1", 587, "u", "p", True, False),
        }.items():
            with self.subTest(given):
                mail = read_email_url("VARIABLE", given)
                account = (mail.host, mail.port, mail.user, mail.password)
                self.assertEqual((*account, mail.use_tls, mail.use_ssl), expected)
                self.assertTrue(mail.is_sent)
                self.assertNotIn("p/w", repr(mail))

    def test_without_a_server(self):
        for given, name in {
            "consolemail://": "console",
            "memorymail://": "locmem",
            "dummymail://": "dummy",
            "filemail:////srv/mail": "filebased",
        }.items():
            with self.subTest(given):
                mail = read_email_url("VARIABLE", given)
                self.assertEqual(mail.backend, f"django.core.mail.backends.{name}.EmailBackend")
                self.assertFalse(mail.is_sent)
        self.assertEqual(read_email_url("VARIABLE", "filemail:////a%20b").folder, "/a b")
        self.assertEqual(read_email_url("VARIABLE", "filemail:///mail").folder, "mail")

    def test_what_cannot_work_or_is_weak_is_refused(self):
        scheme, plain = "does not start with smtp+tls://", "not known to be private"
        account, host, query = "raw / ? or #", "needs one host", "options after its '?'"
        for given, reason in {
            "submission://u:s3cret@h": scheme,
            "pigeon://u:s3cret@h": scheme,
            "u:s3cret@h:587": scheme,
            "smtp+starttls://u:s3cret@h": scheme,
            "smtps://u:s3cret@h": "means two things",
            "smtp://u:s3cret@h:587/?tls=True": query,
            "smtp://u:s3cret@h:465/?ssl=True": query,
            "smtp+tls://u:s3cret@h:587?timeout=5": query,
            "smtp+tls://u:s3cret@h:587/s3": "a path after its host",
            "smtp://u:s3cret@mail.example.com:25": plain,
            "smtp://u:s3cret@mail.example.com": plain,
            "smtp://u:s3cret@8.8.8.8:2525": plain,
            "smtp+tls://u:s3cret@h:465": "write smtp+ssl://",
            "smtp://h:465": "write smtp+ssl://",
            "smtp+ssl://u:s3cret@h:587": "write smtp+tls://",
            "smtp+ssl://u:s3cret@h:25": "write smtp+tls://",
            "smtp+ssl://u:s3cret@h:993": "not for sending",
            "smtp+tls://": host,
            "smtp+tls://u:s3cret@": host,
            "smtp+tls://u:s3cret@h1,h2": host,
            "smtp+tls://u:s3cret@%2Frun": host,
            "smtp+tls://u:s3cret@:587": "needs a host",
            "smtp+tls://u:s3cret@h:port": "needs a host",
            "smtp+tls://u:s3cret@h:0": "needs a host",
            "smtp+tls://s3cret@h:587": "lacks a password",
            "smtp+tls://:s3cret@h:587": "lacks a user name",
            "smtp+tls://u:s3crét@h:587": "no SMTP log-in carries",
            "smtp+tls://u:s3cr%C3%A9t@h:587": "no SMTP log-in carries",
            "smtp+tls://ü:s3cret@h:587": "no SMTP log-in carries",
            "smtp+tls://u:s3cret%0D%0A@h:587": "control character",
            "smtp+tls://u:s3cret%00@h:587": "zero byte",
            "smtp+tls://u:s3 cret@h:587": "a space or a line break",
            "smtp+tls://u:s3c#ret@h:587": account,
            "smtp+tls://u:s3c?ret@h:587": account,
            "consolemail://s3cret": "names more than",
            "filemail://": "the path of a folder",
            "filemail://s3cret/mail": "the path of a folder",
            "filemail:////srv/s3cret?x=1": "the path of a folder",
        }.items():
            self.assert_refused(read_email_url, given, reason)

    def test_the_address_that_e_mails_come_from(self):
        for given in (
            "service@example.com",
            "Me Myself <me@example.com>",
            '"Doe, Jane" <jane.doe+x@mail.example.com>',
            "Žofie <root@localhost>",
        ):
            with self.subTest(given):
                self.assertEqual(read_address("VARIABLE", given), given)
        for given in (
            "example.com",
            "s3cret",
            "a@s3cret.example, b@example.com",
            "Doe, Jane <s3cret@example.com>",
            "Me <s3cret@example.com",
            '"Me <s3cret@example.com>"',
            "s3crét@example.com",
            "a@s3cret.example\nBcc: b@example.com",
            "mailto:s3cret@example.com",
        ):
            self.assert_refused(read_address, given, "not one e-mail address")
