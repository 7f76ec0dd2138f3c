"""What supervise.py does with lines that cannot be written, and where it puts its socket."""

import os
import tempfile
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

from django.test import SimpleTestCase
from supervisor import dispatchers, loggers

from operations import standard_output, supervise
from operations.standard_output import LOST, MOST_WAITING, PATIENCE, Output

# So long that a pipe is full within a line.
LINE = b"x" * 19_999 + b"\n"
LINES = 2 * MOST_WAITING // len(LINE)


class EnvironmentTests(SimpleTestCase):
    def test_an_empty_number_of_web_processes_counts_as_not_set(self):
        for given, kept in (("", None), (" ", None), ("2", "2"), ("two", "two")):
            with (
                self.subTest(given),
                mock.patch.dict(os.environ, PATH="", WEB_CONCURRENCY=given, clear=True),
            ):
                supervise.prepare_environment()
                self.assertEqual(os.environ.get("WEB_CONCURRENCY"), kept)
                self.assertEqual(os.environ["DEBUG"], "false")


class OutputTests(SimpleTestCase):
    def setUp(self):
        self.reader, writer = os.pipe()
        self.addCleanup(os.close, self.reader)
        self.addCleanup(os.close, writer)
        self.clock = self.enterContext(mock.patch.object(standard_output.time, "monotonic"))
        self.clock.return_value = 0
        self.output = Output(writer)

    def fill(self):
        """Write more than a pipe holds and may wait, while nobody reads."""
        for _ in range(LINES):
            self.output.write(LINE)

    def test_a_slow_reader_gets_everything(self):
        self.fill()
        self.clock.return_value = PATIENCE
        self.assertTrue(self.output.is_full())
        seen = b""
        while self.output.waiting:
            seen += os.read(self.reader, 2**16)
            self.output.flush()
        self.assertFalse(self.output.is_full())
        seen += os.read(self.reader, 2**16)
        self.assertEqual(seen, LINES * LINE)

    def test_a_reader_that_has_stopped_gets_a_note_and_what_comes_after_it(self):
        self.fill()
        self.clock.return_value = PATIENCE + 1
        self.assertFalse(self.output.is_full())
        self.assertFalse(self.output.waiting)
        before = os.read(self.reader, 2**17)
        self.output.write(b"later\n")
        seen = os.read(self.reader, 2**17)
        # How much a pipe holds differs. Usually a line was cut off.
        end_of_line = b"" if before.endswith(b"\n") else b"\n"
        self.assertEqual(seen, end_of_line + LOST + b"later\n")

    def test_a_full_disk_raises_nothing_and_leaves_a_note(self):
        with mock.patch.object(os, "write", side_effect=OSError):
            self.output.write(b"lost\n")
            self.output.write(b"lost as well\n")
        self.output.write(b"later\n")
        self.assertEqual(os.read(self.reader, 2**16), LOST + b"later\n")

    def test_a_file_that_another_process_made_non_blocking_loses_nothing(self):
        with mock.patch.object(os, "write", side_effect=BlockingIOError):
            self.output.write(b"kept\n")
        self.output.write(b"later\n")
        self.assertEqual(os.read(self.reader, 2**16), b"kept\nlater\n")


class ProgramLogTests(SimpleTestCase):
    def setUp(self):
        self.lines = []
        self.log = supervise.ProgramLog(SimpleNamespace(write=self.lines.append))

    def prints(self, *pieces: bytes):
        for piece in pieces:
            self.log.emit(loggers.LogRecord(loggers.LevelsByName.INFO, piece))

    def shown(self) -> bytes:
        return b"".join(self.lines)

    def test_half_a_line_waits_for_its_end(self):
        self.prints(b"one\ntw")
        self.assertEqual(self.shown(), b"one\n")
        self.prints(b"o\n")
        self.assertEqual(self.shown(), b"one\ntwo\n")

    def test_half_a_line_that_does_not_grow_is_passed_on_at_the_second_look(self):
        self.prints(b"Password: ")
        self.log.end_line_that_does_not_grow()
        self.assertEqual(self.shown(), b"")
        self.log.end_line_that_does_not_grow()
        self.assertEqual(self.shown(), b"Password: \n")

    def test_a_line_without_an_end_does_not_fill_the_memory(self):
        self.prints(*[b"x" * 2**16] * 5)
        self.assertEqual(self.shown(), b"x" * 5 * 2**16 + b"\n")

    def handler_for(self, path: str) -> loggers.Handler:
        """What supervisor's own object writes a program's lines to, by its `stdout_logfile`."""
        config = mock.MagicMock(
            stdout_logfile=path,
            stdout_logfile_maxbytes=0,
            stdout_capture_maxbytes=0,
            stdout_syslog=False,
        )
        config.options.getLogger = loggers.getLogger
        config.options.loglevel = loggers.LevelsByName.INFO
        program = SimpleNamespace(config=config)
        event = SimpleNamespace(channel="stdout", BEGIN_TOKEN=b"", END_TOKEN=b"")
        with mock.patch.object(loggers, "handle_file", supervise.log_to_output):
            channel = dispatchers.POutputDispatcher(program, event, 0)
        (handler,) = channel.normallog.handlers
        return handler

    def test_supervisor_opens_no_dev_stdout(self):
        self.assertIsInstance(self.handler_for("/dev/stdout"), supervise.ProgramLog)

    def test_supervisor_opens_other_files_as_before(self):
        with tempfile.NamedTemporaryFile() as file:
            handler = self.handler_for(file.name)
            self.addCleanup(handler.close)
            self.assertEqual(handler.stream.name, file.name)


class PrivateFolderTests(SimpleTestCase):
    def setUp(self):
        folder = self.enterContext(tempfile.TemporaryDirectory())
        self.temporary = Path(folder)
        self.enterContext(mock.patch.object(tempfile, "tempdir", folder))
        self.enterContext(mock.patch.dict(os.environ))
        os.environ.pop("RUNTIME_DIRECTORY", None)

    def test_it_is_the_same_at_each_start_and_another_for_each_service(self):
        first = supervise.private_folder("/srv/one/supervisor.sock")
        self.assertEqual(supervise.private_folder("/srv/one/supervisor.sock"), first)
        self.assertNotEqual(supervise.private_folder("/srv/two/supervisor.sock"), first)
        self.assertEqual(first.stat().st_mode & 0o777, 0o700)
        self.assertEqual(first.parent, self.temporary)

    def test_a_folder_that_others_can_write_to_is_not_used(self):
        first = supervise.private_folder("/srv/one/supervisor.sock")
        first.chmod(0o777)
        second = supervise.private_folder("/srv/one/supervisor.sock")
        self.assertNotEqual(second, first)
        self.assertEqual(second.stat().st_mode & 0o777, 0o700)

    def test_a_link_to_a_folder_is_not_used(self):
        first = supervise.private_folder("/srv/one/supervisor.sock")
        first.rename(self.temporary / "elsewhere")
        first.symlink_to(self.temporary / "elsewhere")
        self.assertNotEqual(supervise.private_folder("/srv/one/supervisor.sock"), first)

    def test_that_of_the_unit_is_used(self):
        os.environ["RUNTIME_DIRECTORY"] = f"{self.temporary}:/run/other"
        found = supervise.private_folder("/srv/one/supervisor.sock")
        self.assertEqual(found, self.temporary)
