"""What the programs print reaches the standard output of supervise.py, whatever that is."""

import re
import subprocess
import textwrap
import time
from contextlib import contextmanager, suppress

import psutil
import pytest

from harness.answers import varied
from harness.processes import free_port, wait_until
from harness.service import Service
from harness.standard_outputs import KINDS, StandardOutput

URL = "rediss://redis.example.com:6379"  # that nobody connects to
SUPERVISE = "python -m operations.supervise -c supervisord.conf"
PLAIN = "supervisord -c supervisord.conf"
PROGRAMS = ["celery_worker", "django", "celery_beat"]

# It prints each line in two pieces, so that those of others could come between. Its last words are
# no whole line, and then it is killed.
TALKS = """
    import os
    import signal
    import sys
    import time

    name, lines, pause = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    for number in range(lines):
        os.write(1, f"{name} {number} ".encode())
        time.sleep(pause)
        os.write(2, b"x" * 60 + b"\\n")
        time.sleep(pause)
    os.write(1, f"{name} says goodbye".encode())
    os.kill(os.getpid(), signal.SIGKILL)
"""
# How long supervise.py waits for a reader that has stopped, and how long a stop may take then.
PATIENCE, LAST_LINES = 5, 2
MOST_WAITING = 2**20


@pytest.fixture
def talking(deployment, tmp_path):
    """talking(lines, pause) -> a place whose programs print so many lines each."""

    def talking(lines, pause=0.0):
        place = deployment("self_hosted").copy(tmp_path)
        path = place.project.path
        (path / "talks.py").write_text(textwrap.dedent(TALKS).lstrip())
        conf = path / "supervisord.conf"
        text = conf.read_text()
        for name in PROGRAMS:
            before, head, rest = text.partition(f"[program:{name}]\n")
            options = {
                "command": f"python talks.py {name} {lines} {pause}",
                "startsecs": "0",
                "autorestart": "false",
            }
            for option, value in options.items():
                rest, count = re.subn(rf"(?m)^{option}=.*", f"{option}={value}", rest, count=1)
                assert head and count
            text = before + head + rest
        conf.write_text(text)
        place.configure(URL)
        return place

    return talking


@contextmanager
def started(place, output, command=SUPERVISE, **environment):
    """The command with this standard output, for a `with` statement which kills what is left."""
    popen = subprocess.Popen(
        ["bash", "-c", f"exec {command}"],
        cwd=place.project.path,
        env=place.project.environment(environment),
        stdin=subprocess.DEVNULL,
        stdout=output.fd,
        stderr=output.fd,
        start_new_session=True,
    )
    output.close()
    try:
        yield popen
    finally:
        if popen.poll() is None:
            programs = psutil.Process(popen.pid).children(recursive=True)
            popen.kill()
            for program in programs:
                with suppress(psutil.NoSuchProcess):
                    program.kill()
        popen.wait()


def stop(popen, seconds):
    """SIGTERM, as platforms do; return the exit status."""
    popen.terminate()
    return popen.wait(seconds)


def numbers(text, name):
    """The numbers of the whole lines of a program."""
    return [int(number) for number in re.findall(rf"(?m)^{name} (\d+) x{{60}}$", text)]


def status(place):
    done = place.project.run("supervisorctl -c supervisord.conf status", seconds=15)
    return done.stdout


@pytest.mark.parametrize("kind", varied(KINDS, 2))
def test_whole_lines_of_all_programs_arrive_and_their_last_words(kind, talking, tmp_path):
    place = talking(200, pause=0.001)
    with StandardOutput(kind, tmp_path) as output, started(place, output) as popen:
        output.read()
        ended = r"exited: \w+ \(terminated by SIGKILL; not expected\)"
        wait_until(lambda: len(re.findall(ended, output.text())) == 3, 30, "three ends")
        assert stop(popen, 15) == 0
        text = output.text()
    for name in PROGRAMS:
        assert numbers(text, name) == list(range(200))
        assert re.search(rf"(?m)^{name} says goodbye$", text)
    # Nothing else but supervisord's own lines, and that of the check.
    for line in text.splitlines():
        assert re.match(r"(celery_worker|django|celery_beat|System check|\d{4}-\d\d-\d\d) ", line)


def test_plain_supervisord_starts_no_program_if_standard_output_is_a_socket(talking, tmp_path):
    """So that the test above can fail. It is what supervise.py is for, among other things."""
    place = talking(200)
    with StandardOutput("journal", tmp_path) as output, started(place, output, PLAIN) as popen:
        output.read()
        wait_until(lambda: "ENXIO" in output.text(), 30, "ENXIO")
        stop(popen, 15)
        assert numbers(output.text(), "django") == []


def test_the_lines_of_the_real_programs_arrive_in_the_journal(
    deployment, redis_server, certificates, tmp_path
):
    place = deployment("self_hosted")
    commands = place.configure(redis_server(certificates.of_own).url())
    place.project.predeploy(commands)
    port = free_port()
    with (
        StandardOutput("journal", tmp_path) as output,
        started(place, output, PORT=str(port)) as popen,
    ):
        output.read()
        service = Service(place.project, port, {})
        service.wait_for_status("/readyz", 200, 60)
        for line in (r"celery@\S+ ready\.", "Listening at: http", "beat: Starting", "GET /readyz"):
            wait_until(lambda line=line: re.search(line, output.text()), 20, line)
        assert stop(popen, 28) == 0
        assert "worker: Cold shutdown" in output.text()


def test_a_file_that_is_truncated_goes_on_from_its_beginning(talking, tmp_path):
    """As logrotate's `copytruncate` does it; `>` would leave a hole of zeros."""
    place = talking(100_000, pause=0.005)
    with StandardOutput("> file", tmp_path) as output, started(place, output) as popen:
        wait_until(lambda: len(numbers(output.text(), "django")) > 200, 30, "lines")
        output.path.write_bytes(b"")
        wait_until(lambda: len(numbers(output.text(), "django")) > 10, 15, "lines after it")
        assert "\0" not in output.text()
        assert stop(popen, 15) == 0


def test_half_a_line_is_passed_on_when_nothing_follows(talking, tmp_path):
    place = talking(1)
    talks = place.project.path / "talks.py"
    talks.write_text("import os, time; os.write(1, b'Password: '); time.sleep(60)")
    with StandardOutput("pipe", tmp_path) as output, started(place, output) as popen:
        output.read()
        # It is seen at the second of two looks, which are 5 s apart.
        wait_until(lambda: output.text().count("Password: \n") == 3, 3 * 10, "half lines")
        assert stop(popen, 15) == 0


def test_a_reader_that_is_slow_makes_the_programs_wait_and_loses_nothing(talking, tmp_path):
    place = talking(10_000)
    with StandardOutput("pipe", tmp_path) as output, started(place, output) as popen:
        output.read(bytes_a_second=400_000)
        # 3 x 10,000 lines of about 80 bytes: more than may wait, and 6 s for this reader.
        goodbyes = "says goodbye"
        wait_until(lambda: output.text().count(goodbyes) == 3, 60, "the last words")
        assert stop(popen, 15) == 0
    for name in PROGRAMS:
        assert numbers(output.text(), name) == list(range(10_000))
    assert len(output.text()) > 2 * MOST_WAITING


@pytest.mark.parametrize("kind", varied(["pipe", "journal"]))
def test_a_reader_that_stops_costs_lines_and_nothing_else(kind, talking, tmp_path):
    place = talking(10_000_000, pause=0.0001)
    with StandardOutput(kind, tmp_path) as output, started(place, output) as popen:
        wait_until(lambda: "RUNNING" in status(place), 15, "supervisorctl answers")
        supervise = psutil.Process(popen.pid)
        before = supervise.memory_info().rss
        programs = supervise.children()
        (beat,) = [program for program in programs if "celery_beat" in program.cmdline()]
        # Until the programs have waited once, and were let go.
        time.sleep(PATIENCE * 3)
        busy = beat.cpu_times().user
        assert status(place).count("RUNNING") == 3
        wait_until(lambda: beat.cpu_times().user > busy, 10, "the programs go on")
        assert supervise.memory_info().rss - before < 4 * MOST_WAITING

        output.read()
        lost = "supervise: some lines are missing here"
        wait_until(lambda: re.search(f"(?m)^{lost}", output.text()), 10, "the note")
        seen = len(output.text())
        wait_until(lambda: len(output.text()) > seen + 100_000, 10, "lines after it")
        assert stop(popen, 15) == 0
    _, rest = output.text().split(lost, 1)
    assert numbers(rest, "django")


@pytest.mark.all
def test_a_service_whose_reader_has_stopped_can_be_stopped(talking, tmp_path):
    place = talking(10_000_000, pause=0.0001)
    with StandardOutput("pipe", tmp_path) as output, started(place, output) as popen:
        wait_until(lambda: status(place).count("RUNNING") == 3, 15, "supervisorctl answers")
        time.sleep(PATIENCE / 2)
        began = time.monotonic()
        assert stop(popen, 28) == 0
        # Each program ends at its signal; the rest is for the reader.
        assert time.monotonic() - began < 3 * LAST_LINES


@pytest.mark.parametrize("kind", varied(["pipe", "journal", "terminal"]))
def test_a_reader_that_is_gone_costs_lines_and_nothing_else(kind, talking, tmp_path):
    place = talking(10_000_000, pause=0.001)
    with StandardOutput(kind, tmp_path) as output, started(place, output) as popen:
        wait_until(lambda: "RUNNING" in status(place), 15, "supervisorctl answers")
        output.close_reader()
        time.sleep(PATIENCE)
        assert status(place).count("RUNNING") == 3
        assert stop(popen, 15) == 0


def test_a_standard_output_that_is_closed_is_none(talking, tmp_path):
    place = talking(10_000_000, pause=0.001)
    command = f"{SUPERVISE} <&- >&- 2>&-"
    with StandardOutput("pipe", tmp_path) as output, started(place, output, command) as popen:
        wait_until(lambda: status(place).count("RUNNING") == 3, 15, "supervisorctl answers")
        assert stop(popen, 15) == 0
