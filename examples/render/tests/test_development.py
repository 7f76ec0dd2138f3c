"""The parts of `manage.py dev` that need no servers."""

import os
import tempfile
from pathlib import Path
from unittest import mock

from django.core.management.base import CommandError
from django.test import SimpleTestCase

from config.environment import Environment
from operations.development import local_redis
from operations.development.programs import InvalidProcfile, Screen, describe, read_procfile
from operations.management.commands.dev import check_address

URL = "redis://127.0.0.1:16400/0"


class FolderTestCase(SimpleTestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)


class DotenvTests(FolderTestCase):
    def write(self, before: bytes) -> str:
        dotenv = self.folder / ".env"
        dotenv.write_bytes(before)
        local_redis.write_to(dotenv, "REDIS_URL", URL)
        self.assertEqual(local_redis.port_in(dotenv, "REDIS_URL"), 16400)
        return dotenv.read_bytes().decode()

    def test_the_url_is_added_at_the_end(self):
        added = f"{local_redis.COMMENT}\nREDIS_URL={URL}\n"
        self.assertEqual(self.write(b"DEBUG=true\n"), "DEBUG=true\n" + added)
        self.assertEqual(self.write(b"DEBUG=true"), "DEBUG=true\n" + added)
        self.assertEqual(self.write(b""), added)

    def test_an_empty_line_is_filled(self):
        text = self.write(b"REDIS_URL=\nDEBUG=true\nMY_REDIS_URL=\n")
        expected = f"{local_redis.COMMENT}\nREDIS_URL={URL}\nDEBUG=true\nMY_REDIS_URL=\n"
        self.assertEqual(text, expected)

    def test_every_command_finds_the_url_however_the_line_was_empty(self):
        for empty in (
            "REDIS_URL=\r\n",
            "REDIS_URL=''\n",
            'REDIS_URL=""\n',
            "REDIS_URL= # here\n",
            "REDIS_URL =\n",
            "export REDIS_URL=\n",
            "\ufeffREDIS_URL=\n",
        ):
            with self.subTest(empty):
                self.write(empty.encode())
                with mock.patch.dict(os.environ, clear=True):
                    env = Environment(self.folder / ".env", {})
                self.assertEqual((env.text("REDIS_URL"), env.problems), (URL, []))

    def test_whose_redis_a_url_means(self):
        self.assertEqual(local_redis.own_port(URL), 16400)
        for url in (
            "redis://127.0.0.1:6379/0",
            "redis://localhost:16400/0",
            "redis://127.0.0.1:16400/1",
            "redis://:password@127.0.0.1:16400/0",
            "redis://127.0.0.1:16900/0",
        ):
            with self.subTest(url):
                self.assertIsNone(local_redis.own_port(url))


class ProcfileTests(FolderTestCase):
    def read(self, text: str) -> dict[str, str]:
        path = self.folder / "Procfile.dev"
        path.write_text(text)
        return read_procfile(path)

    def test_programs_in_their_order(self):
        found = self.read("# web: no\n\nweb: a $ADDRESS\ncss_1: b: c\n")
        self.assertEqual(list(found.items()), [("web", "a $ADDRESS"), ("css_1", "b: c")])

    def test_what_cannot_be_read_is_told_with_its_line(self):
        for text, sentence in {
            "web a\n": "Procfile.dev, line 1: write NAME: COMMAND.",
            "web: a\n\nweb:\n": "Procfile.dev, line 3: write NAME: COMMAND.",
            "web: a\nweb: b\n": "Procfile.dev, line 2: there is a web already.",
        }.items():
            with self.subTest(text), self.assertRaisesMessage(InvalidProcfile, sentence):
                self.read(text)
        with self.assertRaisesMessage(InvalidProcfile, "is missing"):
            read_procfile(self.folder / "another")


class ScreenTests(SimpleTestCase):
    def setUp(self) -> None:
        self.output, end = os.pipe()
        self.addCleanup(os.close, end)
        stdout = mock.patch("sys.stdout", mock.Mock(fileno=lambda: end))
        stdout.start()
        self.addCleanup(stdout.stop)
        self.when_closed = mock.Mock()

    def test_each_line_begins_with_its_program(self):
        screen = Screen(["web", "worker"], coloured=False, when_closed=self.when_closed)
        screen.show("web", b"one\ntwo\n")
        screen.show("worker", b"(Pdb) ")
        screen.show("worker", b"42\n(Pdb) ")
        screen.say("web", "three")
        shown = os.read(self.output, 1000).decode().splitlines()
        os.close(self.output)
        self.assertEqual(
            shown,
            [
                "web    | one",
                "web    | two",
                "worker | (Pdb) 42",
                "worker | (Pdb) ",
                "web    | three",
            ],
        )
        self.when_closed.assert_not_called()

    def test_a_reader_that_has_gone(self):
        screen = Screen(["web"], coloured=True, when_closed=self.when_closed)
        os.close(self.output)
        screen.say("web", "one")
        screen.say("web", "two")
        self.when_closed.assert_called_once_with()


class WordsTests(SimpleTestCase):
    def test_how_a_program_has_ended(self):
        self.assertEqual(describe(1), "has ended with status 1")
        self.assertEqual(describe(-9), "was ended by SIGKILL")
        self.assertEqual(describe(128 + 9), "was ended by SIGKILL")
        self.assertEqual(describe(255), "has ended with status 255")

    def test_addresses(self):
        for address in ("0", "127.0.0.1:0", "localhost:0"):
            with self.subTest(address):
                check_address(address)
        for address in ("", "a b", "70000", "127.0.0.1", "8000:127.0.0.1"):
            with self.subTest(address), self.assertRaisesMessage(CommandError, "is not a port"):
                check_address(address)
