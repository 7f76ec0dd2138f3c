"""A bake that is interrupted, killed or out of disk: what is left says so, or is complete."""

import os
import signal
import sys

import pytest

from harness.answers import each
from harness.cli import Home, tree
from harness.machine import Moment, hook_frames, pages, small_disk
from harness.processes import Failed, Program, wait_until
from harness.terminal import CTRL_C, Terminal

SECONDS = 60
MARKER = "INCOMPLETE.txt"

# {(who, event, part of its arguments, number): what is left of a bake that ends at that moment}
MOMENTS = {
    ("cookiecutter", "os.mkdir", "my_service", 1): "nothing",
    ("cookiecutter", "tempfile.mkstemp", "", 1): "an empty folder",
    ("cookiecutter", "subprocess.Popen", "", 1): "an empty folder",
    ("pre_gen", "import", "enum", 1): "an empty folder",
    ("pre_gen", "import", "json.decoder", 1): "an empty folder",
    ("pre_gen", "open", MARKER, 1): "an empty folder",
    ("cookiecutter", "open", "my_service/.env.example", 1): "a marked project",
    ("cookiecutter", "os.chmod", "my_service/.env.example", 1): "a marked project",
    ("cookiecutter", "open", "my_service/supervisord.conf", 1): "a marked project",
    ("cookiecutter", "shutil.copyfile", "my_service/.github/workflows/ci.yml", 1): (
        "a marked project"
    ),
    ("cookiecutter", "open", "my_service/config/settings.py", 1): "a marked project",
    ("cookiecutter", "os.chmod", "my_service/tests/test_registration.py", 1): "a marked project",
    ("cookiecutter", "tempfile.mkstemp", "", 2): "a marked project",
    ("cookiecutter", "subprocess.Popen", "", 2): "a marked project",
    ("post_gen", "import", "enum", 1): "a marked project",
    ("post_gen", "import", "configparser", 1): "a marked project",
    ("post_gen", "open", "config/settings.py", 1): "a marked project",
    ("post_gen", "os.remove", MARKER, 1): "a marked project",
}
HALF = ("cookiecutter", "open", "my_service/manage.py", 1)
IN_HOOKS = [moment for moment in MOMENTS if moment[0] != "cookiecutter"]
AT_THE_MARKER = [moment for moment in IN_HOOKS if moment[2] == MARKER]


def moment_id(moment):
    who, event, part, number = moment
    return f"{who}-{event}-{part.rpartition('/')[2] or number}"


@pytest.fixture(scope="module")
def whole(template, tmp_path_factory):
    """The files of a project whose bake nobody interrupts."""
    home = Home(tmp_path_factory.mktemp("whole"))
    done = home.cookiecutter(template)
    assert (done.returncode, done.stderr) == (0, "")
    return tree(home.work / "my_service")


@pytest.fixture
def held(home, template, tmp_path):
    """held(moment, *flags) -> (Program, Moment, id): a bake whose process `id` is held there."""
    started = []

    def held(moment, *flags):
        moment = Moment(tmp_path, *moment)
        log, env = tmp_path / "log", {**home.env, **moment.env}
        command = home.command(template, *flags)
        program = Program("cookiecutter", command, cwd=home.work, env=env, log=log)
        started.append(program)
        return program, moment, moment.wait(lambda: program.exit_code() is not None)

    yield held
    for program in started:
        program.kill()


def left(folder, whole):
    """Return in words what a bake left. Raises AssertionError if its user could not tell."""
    if not os.path.lexists(folder):
        return "nothing"
    files = tree(folder)
    if files == {}:
        return "an empty folder"
    if MARKER in files:
        return "a marked project"
    assert files == whole, "a part of a project that does not say so"
    return "a project"


# The helpers themselves


def test_a_part_of_a_project_that_does_not_say_so_is_an_error(tmp_path, whole):
    assert left(tmp_path / "my_service", whole) == "nothing"
    assert left(tmp_path, whole) == "an empty folder"
    (tmp_path / "manage.py").write_bytes(whole["manage.py"])
    with pytest.raises(AssertionError, match="does not say so"):
        left(tmp_path, whole)
    (tmp_path / MARKER).touch()
    assert left(tmp_path, whole) == "a marked project"


def test_a_moment_that_never_comes_is_an_error(held, tmp_path):
    with pytest.raises(ValueError, match="pre_hook"):
        Moment(tmp_path, "pre_hook", "open", MARKER)
    with pytest.raises(Failed, match="ended before the moment came"):
        held(("cookiecutter", "open", "no such file", 1))


def test_a_process_that_is_held_goes_on_when_released(home, held, whole):
    program, moment, pid = held(("post_gen", "os.remove", MARKER, 1))
    assert pid != program.pid
    assert left(home.work / "my_service", whole) == "a marked project"
    moment.release()
    assert program.wait(SECONDS) == 0
    assert left(home.work / "my_service", whole) == "a project"


# Signals


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("moment", each(4, [(moment,) for moment in MOMENTS]), ids=moment_id)
def test_what_an_interrupted_bake_leaves_says_so(home, held, whole, moment, number):
    program, _, _ = held(moment)
    os.killpg(program.pid, number)  # As a terminal does, to cookiecutter and its hook.
    program.wait(SECONDS)
    # An interrupted cookiecutter may still notice that its hook failed, and remove the folder.
    possible = {MOMENTS[moment], "nothing"} if moment in IN_HOOKS else {MOMENTS[moment]}
    assert left(home.work / "my_service", whole) in possible
    if number == signal.SIGINT:
        assert program.exit_code() == 1
        assert program.output().strip() == "Aborted!"
    else:
        assert program.output() == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_so_does_what_a_closed_terminal_leaves(home, held, whole, number):
    program, _, _ = held(HALF)
    os.killpg(program.pid, number)
    assert program.wait(SECONDS) == -number
    assert left(home.work / "my_service", whole) == "a marked project"


@pytest.mark.parametrize("moment", AT_THE_MARKER, ids=moment_id)
def test_ctrl_c_in_a_terminal_shows_no_traceback(home, template, tmp_path, whole, moment):
    held = Moment(tmp_path, *moment)
    with Terminal(home.command(template), cwd=home.work, env={**home.env, **held.env}) as terminal:
        held.wait(lambda: not terminal.child.isalive())
        terminal.type(CTRL_C)
        assert terminal.end() == 1
        assert [row for row in terminal.rows if row] == ["^C", "Aborted!"]


def test_an_interrupted_project_says_what_to_do(home, held):
    program, _, _ = held(HALF)
    os.killpg(program.pid, signal.SIGKILL)
    program.wait(SECONDS)
    found, to_do = (home.work / "my_service" / MARKER).read_text("ascii").splitlines()
    assert found.startswith("Cookiecutter has not finished this project: files may be missing")
    assert to_do.startswith("Delete this folder, or ")
    assert to_do.endswith(" and generate the project again.")


@pytest.mark.parametrize(
    ("moment", "refusal"),
    [
        (("pre_gen", "open", MARKER, 1), None),
        (HALF, f"{MARKER}, because an earlier run"),
        (("post_gen", "os.remove", MARKER, 1), f"{MARKER}, because an earlier run"),
    ],
    ids=["an empty folder", "half a project", "all of it"],
)
def test_the_next_run_says_what_to_do(home, template, held, whole, moment, refusal):
    program, _, _ = held(moment)
    os.killpg(program.pid, signal.SIGKILL)
    program.wait(SECONDS)
    before = tree(home.work)
    done = home.cookiecutter(template)
    assert (done.returncode, tree(home.work)) == (1, before)
    assert done.stdout == 'Error: "my_service" directory already exists\n'
    done = home.cookiecutter(template, "-f")
    if refusal:
        assert (done.returncode, tree(home.work)) == (1, before)
        assert f"The folder 'my_service' already holds {refusal}" in done.stderr
    else:
        assert (done.returncode, tree(home.work / "my_service")) == (0, whole)


@pytest.mark.parametrize(
    ("moment", "state"),
    [
        (("pre_gen", "open", MARKER, 1), "a marked project"),
        (("post_gen", "os.remove", MARKER, 1), "a project"),
    ],
    ids=["pre_gen", "post_gen"],
)
def test_a_hook_outlives_cookiecutter(home, held, whole, moment, state):
    program, moment, _ = held(moment)
    os.kill(program.pid, signal.SIGKILL)
    program.wait(SECONDS)
    moment.release()
    wait_until(lambda: not program.family(), SECONDS, "the end of the hook")
    assert left(home.work / "my_service", whole) == state


@pytest.mark.parametrize("moment", AT_THE_MARKER, ids=moment_id)
def test_a_killed_hook_takes_the_project_with_it(home, held, moment):
    program, _, hook = held(moment)
    os.kill(hook, signal.SIGKILL)
    assert program.wait(SECONDS) == 1
    assert "Hook script failed (exit status: -9)" in program.output()
    assert list(home.work.iterdir()) == []


def test_without_hooks_a_part_of_a_project_does_not_say_so(home, held, whole):
    program, _, _ = held(HALF, "--accept-hooks", "no")
    os.killpg(program.pid, signal.SIGKILL)
    program.wait(SECONDS)
    with pytest.raises(AssertionError, match="does not say so"):
        left(home.work / "my_service", whole)


def test_a_killed_cruft_leaves_a_project_that_says_so(home, template, tmp_path, whole):
    repository = home.repository(template, tmp_path / "repository")
    moment = Moment(tmp_path, "post_gen", "os.remove", MARKER)
    command = [sys.executable, "-m", "cruft", "create", str(repository), "--no-input"]
    env, log = {**home.env, **moment.env}, tmp_path / "log"
    program = Program("cruft", command, cwd=home.work, env=env, log=log)
    try:
        moment.wait(lambda: program.exit_code() is not None)
    finally:
        program.kill()
    assert left(home.work / "my_service", whole) == "a marked project"


# Full disks


def bake_on_small_disk(home, template, tmp_path, free, files=0):
    """Bake into a folder with that many free pages; return the CompletedProcess and its copy."""
    folders = disk, seed, kept = [tmp_path / name for name in ("disk", "seed", "kept")]
    for folder in folders:
        folder.mkdir()
    command = home.command(template, "-o", str(disk))
    return home.run(small_disk(disk, free, seed, kept, command, files)), kept / "my_service"


FULL = "No space left on device"


def test_a_disk_that_is_full_at_once_holds_nothing(home, template, tmp_path):
    done, folder = bake_on_small_disk(home, template, tmp_path, 0)
    assert done.returncode == 1
    assert (
        f"\n  - No file can be written into '{tmp_path}/disk/my_service': {FULL}.\n" in done.stderr
    )
    assert hook_frames(done) == []
    assert not folder.exists()


@pytest.mark.parametrize("part", [0, 0.25, 0.5, 0.75, 1])
def test_a_disk_that_is_full_half_way_holds_a_project_that_says_so(
    home, template, tmp_path, whole, part
):
    enough = pages(whole.values())  # One page less than with the marker.
    done, folder = bake_on_small_disk(home, template, tmp_path, max(1, int(part * enough)))
    assert done.returncode == 1
    assert FULL in done.stderr
    assert hook_frames(done) == []
    assert left(folder, whole) == "a marked project"
    assert "Delete this folder" in (folder / MARKER).read_text()


@pytest.mark.parametrize(
    ("files", "state"), [(1, "nothing"), (2, "a marked project"), (20, "a marked project")]
)
def test_a_disk_that_cannot_hold_more_files_is_as_full(
    home, template, tmp_path, whole, files, state
):
    done, folder = bake_on_small_disk(home, template, tmp_path, 10 * len(whole), files)
    assert done.returncode == 1
    assert FULL in done.stderr
    assert hook_frames(done) == []
    assert left(folder, whole) == state


def test_a_disk_that_is_just_large_enough_holds_the_project(home, template, tmp_path, whole):
    done, folder = bake_on_small_disk(home, template, tmp_path, pages(whole.values()) + 1)
    assert (done.returncode, done.stderr) == (0, "")
    assert left(folder, whole) == "a project"
