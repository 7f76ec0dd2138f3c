"""Hostile machines: temporary folder, home, locale, output and Python's environment."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import cookiecutter
import pytest

from harness.cli import Home, tree
from harness.machine import PAGE, hook_frames, read_only, small_disk

HEROKU = {"redis_provider": "heroku", "cert_strictness": "required"}


@pytest.fixture(scope="module")
def whole(template, tmp_path_factory):
    """The files of the project on a machine that is not hostile."""
    home = Home(tmp_path_factory.mktemp("whole"))
    done = home.cookiecutter(template)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("Next: cd my_service && ./script/dev\n")
    return tree(home.work / "my_service")


def good(home, done, whole):
    """Assert that the bake did what was asked for, and printed nothing else."""
    assert (done.returncode, done.stderr) == (0, "")
    assert tree(home.work / "my_service") == whole


def failed(home, done, left=None):
    """Assert that cookiecutter failed by itself; `left` is what it leaves, None for no folder."""
    assert done.returncode == 1
    assert hook_frames(done) == []
    folder = home.work / "my_service"
    assert (tree(folder) if folder.exists() else None) == left


# The helper itself


@pytest.mark.parametrize("hook", ["pre_gen_project.py", "post_gen_project.py"])
def test_a_traceback_of_a_hook_is_seen(home, template, tmp_path, hook):
    folder = copy(template, tmp_path)
    path = folder / "hooks" / hook
    path.write_text(path.read_text() + "    raise KeyError('told by the hook')\n")
    replace(path, "sys.exit(", "print(")
    done = home.cookiecutter(folder)
    assert "told by the hook" in done.stderr
    assert len(hook_frames(done)) == 1


def copy(template, tmp_path):
    return shutil.copytree(template, tmp_path / "changed")


def replace(path, old, new):
    """Replace a text that stands in the file once."""
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))


# The temporary folder, which holds the copies of the hooks

STRAY = "import sys\nsys.exit('a stray module was imported')\n"
POP = "    sys.path.pop(0)"


def test_stray_modules_in_the_temp_folder_are_not_imported(home, template, whole):
    for name in {*sys.stdlib_module_names, "yaml"}:
        (home.tmp / f"{name}.py").write_text(STRAY)
    good(home, home.cookiecutter(template), whole)


@pytest.mark.parametrize(
    ("hook", "module"),
    [
        ("pre_gen_project.py", "json"),
        ("pre_gen_project.py", "re"),
        ("post_gen_project.py", "ast"),
        ("post_gen_project.py", "yaml"),
    ],
)
def test_without_the_first_line_of_a_hook_they_would_be(home, template, tmp_path, hook, module):
    (home.tmp / f"{module}.py").write_text(STRAY)
    folder = copy(template, tmp_path)
    replace(folder / "hooks" / hook, POP, "    sys.path.copy()")
    done = home.cookiecutter(folder)
    assert "a stray module was imported" in done.stderr
    failed(home, done)


def test_a_temp_folder_that_is_not_there_is_not_needed(home, template, whole):
    home.env |= {"TMPDIR": str(home.tmp / "nowhere"), "TEMP": str(home.tmp)}
    good(home, home.cookiecutter(template), whole)
    assert len(list(home.tmp.iterdir())) == 2


def hook_pages(home, template):
    """The number of pages that the copies of the two hooks take; cookiecutter leaves them."""
    home.cookiecutter(template)
    shutil.rmtree(home.work / "my_service")
    copies = sorted(home.tmp.iterdir(), key=os.path.getctime)
    sizes = [-(-path.stat().st_size // PAGE) for path in copies]
    for path in copies:
        path.unlink()
    return sizes


def bake_with_temp_disk(home, template, tmp_path, free):
    seed, kept = tmp_path / "seed", tmp_path / "kept"
    seed.mkdir()
    kept.mkdir()
    home.env["TEMP"] = str(kept)
    return home.run(small_disk(home.tmp, free, seed, kept, home.command(template)))


def test_a_full_temp_folder_is_not_used(home, template, tmp_path, whole):
    good(home, bake_with_temp_disk(home, template, tmp_path, 0), whole)


def test_a_temp_folder_too_small_for_the_first_hook_leaves_an_empty_folder(
    home, template, tmp_path
):
    first, _ = hook_pages(home, template)
    done = bake_with_temp_disk(home, template, tmp_path, first - 1)
    failed(home, done, left={})
    assert done.stderr.endswith("OSError: [Errno 28] No space left on device\n")


def test_a_temp_folder_too_small_for_the_second_hook_leaves_a_project_that_says_so(
    home, template, tmp_path, whole
):
    first, second = hook_pages(home, template)
    done = bake_with_temp_disk(home, template, tmp_path, first + second - 1)
    marker = (home.work / "my_service" / "INCOMPLETE.txt").read_bytes()
    assert marker.startswith(b"Cookiecutter has not finished this project: ")
    failed(home, done, left=whole | {"INCOMPLETE.txt": marker})
    assert done.stderr.endswith("OSError: [Errno 28] No space left on device\n")


def test_a_temp_folder_just_large_enough_for_both_hooks_is_enough(home, template, tmp_path, whole):
    first, second = hook_pages(home, template)
    good(home, bake_with_temp_disk(home, template, tmp_path, first + second), whole)


# Home, where cookiecutter writes the answers


def test_a_home_that_is_not_there_is_made(home, template, whole):
    home.env["HOME"] = str(home.home / "new")
    good(home, home.cookiecutter(template), whole)
    assert {path.name for path in (home.home / "new").iterdir()} == {".cookiecutter_replay"}


def test_no_home_at_all_leaves_nothing(home, template, whole):
    home.env["HOME"] = os.devnull
    done = home.cookiecutter(template)
    failed(home, done)
    assert "OSError: Unable to create directory at /dev/null/.cookiecutter_replay/" in done.stderr
    # What the user can do about it.
    config = home.work / "config.yaml"
    config.write_text(f"replay_dir: {home.tmp}\n")
    good(home, home.cookiecutter(template, "--config-file", str(config)), whole)


def test_a_read_only_home_leaves_nothing(home, template, tmp_path):
    mounts = tmp_path / "mounts"
    mounts.mkdir()
    done = home.run(read_only(home.home, mounts, home.command(template)))
    failed(home, done)
    assert "OSError: Unable to create directory at " in done.stderr


# Locales


@pytest.mark.parametrize(
    "env",
    [
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"LC_ALL": "C"},
        {"PYTHONIOENCODING": "ascii"},
    ],
    ids=lambda env: " ".join(f"{key}={value}" for key, value in env.items()),
)
@pytest.mark.parametrize("name", ["My Service", "Café ☕"], ids=["ASCII", "not ASCII"])
def test_no_locale_changes_the_outcome(home, template, whole, env, name):
    home.env |= env
    done = home.cookiecutter(template, answers={"project_name": name, "project_slug": "my_service"})
    if name.isascii():
        assert done.returncode == 0
        assert tree(home.work / "my_service") == whole
    else:
        failed(home, done)
    assert hook_frames(done) == []


# Output that nobody takes


def shell(home, template, redirected, answers=None):
    """Run cookiecutter through a shell that redirects its output."""
    command = home.command(template, answers=answers)
    return home.run(["sh", "-c", f'"$@" {redirected}', "sh", *command])


@pytest.mark.parametrize("redirected", [">&-", ">&- 2>&-"])
def test_closed_output_changes_nothing(home, template, whole, redirected):
    good(home, shell(home, template, redirected), whole)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="NOT TESTED: here is no /dev/full")
def test_a_full_disk_behind_the_output_changes_nothing(home, template, whole):
    good(home, shell(home, template, ">/dev/full"), whole)


@pytest.mark.parametrize("buffered", [True, False], ids=["buffered", "unbuffered"])
def test_a_pipe_that_nobody_reads_changes_nothing(home, template, whole, buffered):
    home.env["PYTHONUNBUFFERED"] = "" if buffered else "1"
    reader, writer = os.pipe()
    os.close(reader)
    command = home.command(template)
    try:
        done = subprocess.run(
            command, cwd=home.work, env=home.env, stdout=writer, stderr=subprocess.PIPE, text=True
        )
    finally:
        os.close(writer)
    good(home, done, whole)


@pytest.mark.parametrize("redirected", [">&-", "2>&-", ">&- 2>&-"])
def test_a_refusal_that_nobody_hears_is_one(home, template, redirected):
    failed(home, shell(home, template, redirected, HEROKU))


# Folders with awkward names

AWKWARD = "two words/it's \"quoted\" '''/back\\slash/new\nline/$(id) `id` %s/Café ☕/-f"


@pytest.mark.parametrize("there", [True, False], ids=["in it", "into it"])
def test_no_name_of_the_output_folder_matters(home, template, whole, there):
    folder = home.work / AWKWARD
    folder.mkdir(parents=True)
    command = home.command(template, *([] if there else ["-o", AWKWARD]))
    done = home.run(command, cwd=folder if there else None)
    assert (done.returncode, done.stderr) == (0, "")
    assert tree(folder / "my_service") == whole


def test_an_output_folder_that_is_not_utf_8_does_not_matter(home, template, whole):
    folder = home.work / os.fsdecode(b"\xff")
    try:
        folder.mkdir()
    except OSError:
        pytest.skip("NOT TESTED: this file system has names in UTF-8 only")
    done = home.run(home.command(template), cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")
    assert tree(folder / "my_service") == whole


@pytest.mark.parametrize("name", ["{{ 7 * 7 }}", "{% raw %}", "{# x #}"])
def test_an_output_folder_that_cookiecutter_would_render_is_refused(home, template, name):
    (home.work / name).mkdir()
    done = home.run(home.command(template), cwd=home.work / name)
    assert done.returncode == 1
    assert hook_frames(done) == []
    assert "holds template tags, which cookiecutter would run. Choose another" in done.stderr
    assert tree(home.work) == {name: None}


# Python's environment


@pytest.mark.parametrize(
    "env",
    [
        {"PYTHONSAFEPATH": "1", "PYTHONHASHSEED": "7"},
        {"PYTHONDEVMODE": "1", "PYTHONWARNINGS": "error", "PYTHONUNBUFFERED": "1"},
        {"PYTHONOPTIMIZE": "2", "PYTHONDONTWRITEBYTECODE": "", "PATH": ""},
    ],
    ids=lambda env: " ".join(f"{key}={value}" for key, value in env.items()),
)
def test_no_variable_of_python_changes_the_outcome(home, template, whole, env):
    home.env |= env
    good(home, home.cookiecutter(template), whole)


@pytest.mark.parametrize("target", ["render", "server"])
def test_without_pyyaml_the_hook_says_what_it_did_not_check(
    home, template, tmp_path, whole, target
):
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", bare], check=True)
    # As with a cookiecutter that bundles its packages: the Python of its hooks has none.
    packages = str(Path(cookiecutter.__file__).parents[1])
    start = (
        f"import sys; sys.path.append({packages!r}); from cookiecutter.__main__ import main; main()"
    )
    _, _, _, *rest = home.command(template, answers={"deploy_target": target})
    done = home.run([str(bare / "bin" / "python"), "-c", start, *rest])
    said = "the syntax of .yaml and .yml files, because PyYAML is not installed"
    assert (done.returncode, " ".join(done.stderr.split())) == (0, f"Not checked: {said}.")
    found = tree(home.work / "my_service")
    assert found == whole if target == "render" else "render.yaml" not in found


def test_the_folder_of_the_command_is_not_searched_by_the_hooks(home, template, whole):
    """A `cookiecutter` that is started as a program does not search the current folder."""
    for name in ("yaml", "json", "re", "ast"):
        (home.work / f"{name}.py").write_text(STRAY)
    program = Path(sysconfig.get_path("scripts"), "cookiecutter")
    _, _, _, *rest = home.command(template)
    good(home, home.run([str(program), *rest]), whole)
