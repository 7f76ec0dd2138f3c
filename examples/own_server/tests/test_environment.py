"""The environment variables: how they are read, and how all that are wrong are told at once."""

import os
import tempfile
from pathlib import Path
from unittest import mock

from django.test import SimpleTestCase

from config.environment import Environment


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
