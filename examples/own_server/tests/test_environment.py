"""The environment variables: how they are read, and how all that are wrong are told at once."""

import os
import tempfile
from pathlib import Path
from unittest import mock

from django.test import SimpleTestCase

from config.database_url import read_database_url
from config.environment import Environment
from config.hosts import read_host


class EnvironmentTests(SimpleTestCase):
    DEFAULTS = {
        "REDIS_CERT_REQS": "required",
        "REDIS_CHECK_HOSTNAME": "true",
        "REDIS_DATABASES": "16",
    }

    def environment(self, dotenv: str | bytes = "", **variables: str) -> Environment:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, ".env")
            if dotenv:
                path.write_bytes(dotenv if isinstance(dotenv, bytes) else dotenv.encode())
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

    def test_a_dotenv_file_is_read_as_people_write_it(self):
        for line in (
            "A = rediss://:p@h/0",
            "  A=rediss://:p@h/0",
            "\tA\t=\trediss://:p@h/0\t",
            "export A='rediss://:p@h/0'",
            'A="rediss://:p@h/0"\r',
            "A=rediss://:p@h/0 # note",
            "\ufeffA=rediss://:p@h/0",
            "\ufeff# note\nA=rediss://:p@h/0",
        ):
            with self.subTest(line):
                env = self.environment(f"{line}\nB=2\n")
                self.assertEqual((env.text("A"), env.text("B")), ("rediss://:p@h/0", "2"))
                self.assertEqual(env.problems, [])

    def test_a_dotenv_file_that_is_no_utf_8_is_refused_whole(self):
        for encoding in ("utf-16", "utf-32", "latin-1"):
            with self.subTest(encoding):
                env = self.environment("A=s3crét\n".encode(encoding))
                self.assertEqual(
                    env.problems,
                    [".env cannot be read: save it as UTF-8 text that this user may read."],
                )

    def test_the_quotes_that_docker_keeps_are_refused_for_every_variable(self):
        env = self.environment(
            A="'s3cret'",
            B='"true"',
            C="'1'",
            D='"a,b"',
            E="'one'",
            F='"rediss://:s3cret@h"',
            G="'sqlite:///s3cret'",
            H='"s3cret.example"',
        )
        self.assertEqual(env.text("A"), "s3cret")
        self.assertIs(env.boolean("B"), True)
        self.assertEqual(env.integer("C"), 1)
        self.assertEqual(env.list("D"), ["a", "b"])
        self.assertEqual(env.choice("E", ("one", "two")), "one")
        env.redis_policy("F", production=True)
        env.parsed("G", read_database_url, {})
        list(env.all_parsed("H", read_host))
        end = " begins and ends with a quote: remove the quotes around the value."
        self.assertEqual(env.problems, [f"{name}{end}" for name in "ABCDEFGH"])

    def test_a_number_has_bounds(self):
        env = self.environment(PORT="65536")
        env.integer("PORT", "8000", minimum=1, maximum=65535)
        self.assertEqual(env.problems, ["PORT is not a whole number from 1 to 65535: give one."])

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
