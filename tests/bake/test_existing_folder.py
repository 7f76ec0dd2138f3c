"""Baking into a folder that exists: nothing of its owner's is ever changed or deleted."""

import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest

from harness.answers import QUESTIONS, TARGETS, check_keys
from harness.cli import Home, tree
from harness.machine import (
    hook_frames,
    read_only,
    small_disk,
    snapshot,
)

MARKER = "INCOMPLETE.txt"
BAD = {"cert_strictness": "required", "redis_provider": "heroku"}
PAGE = "<p>The owner's page</p>\n"
# Files of an owner, which no bake makes and which nobody wants to lose.
KEPT = {
    ".env": "SECRET_KEY=my own\n",
    ".git/config": "[core]\n\tbare = false\n",
    "LICENSE": "All rights reserved\n",
    "notes.txt": "postgres://ada:s3cret7@db/x cookiecutter.notes {{ todo }}\n",
    "old/script.py": "print 'Python 2'\n",
    "config.txt": "not the package\n",
    "db.sqlite3": "not the template's\n",
}


@pytest.fixture
def project(home):
    """The folder that cookiecutter would make."""
    folder = home.work / "my_service"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def fresh(template, tmp_path_factory):
    """fresh(**answers) -> the files of the same project, baked into a new folder."""
    made = {}

    def fresh(**answers):
        check_keys(answers, QUESTIONS)
        key = tuple(sorted(answers.items()))
        if key not in made:
            home = Home(tmp_path_factory.mktemp("fresh"))
            done = home.cookiecutter(template, answers=answers)
            assert (done.returncode, done.stderr) == (0, "")
            made[key] = tree(home.work / "my_service")
        return made[key]

    return fresh


@pytest.fixture
def broken(template, tmp_path):
    """A copy of the template whose projects post_gen refuses."""
    folder = tmp_path / "broken"
    shutil.copytree(template, folder)
    service = next(folder.glob("{{*}}"))
    (service / "manage.py").write_text("print 'Python 2'\n")
    return folder


def write(folder, texts):
    """Write {path: text} into the folder."""
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
        (folder / name).chmod(0o640)


def empty(tmp_path):
    return Path(tempfile.mkdtemp(dir=tmp_path))


def rewrite(path, text):
    """Write the text and keep the time."""
    times = path.stat()
    path.write_text(text)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def kept(folder):
    """Return the part of a snapshot that is the owner's files and folders."""
    names = {parent.as_posix() for name in KEPT for parent in (Path(name), *Path(name).parents)}
    return {name: found for name, found in snapshot(folder).items() if name in names - {"."}}


def refused(done, *texts):
    """Return the hook's sentence about the folder, of a run that nothing else refused."""
    assert done.returncode == 1
    assert done.stderr.startswith("Nothing was generated, because:\n  - The folder 'my_service' ")
    assert done.stderr.count("\n  - ") == 1
    assert hook_frames(done) == []
    sentence = done.stderr.splitlines()[1]
    for text in texts:
        assert text in sentence
    return sentence


def failed_hook(done, name):
    assert done.returncode == 1
    assert f"Stopping generation because {name} hook script" in done.stdout
    assert done.stdout.endswith("Hook script failed (exit status: 1)\n")
    assert hook_frames(done) == []


# The helper itself


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: rewrite(folder / "LICENSE", "All rights revoked\n"),
        lambda folder: (folder / "LICENSE").chmod(0o600),
        lambda folder: os.utime(folder / "LICENSE", (0, 0)),
        lambda folder: os.utime(folder / "old", (0, 0)),
        lambda folder: (folder / "LICENSE").unlink(),
        lambda folder: (folder / "new").mkdir(),
        lambda folder: ((folder / "link").unlink(), (folder / "link").symlink_to("notes.txt")),
        lambda folder: folder.chmod(0o711),
    ],
    ids=["bytes", "mode", "time", "folder time", "deleted", "new", "link", "the folder itself"],
)
def test_a_snapshot_sees_every_change(tmp_path, change):
    write(tmp_path, KEPT)
    (tmp_path / "link").symlink_to("LICENSE")
    before = snapshot(tmp_path)
    assert snapshot(tmp_path) == before
    change(tmp_path)
    assert snapshot(tmp_path) != before


# Without flags


@pytest.mark.parametrize("flags", [[], ["-s"], ["--keep-project-on-failure"]], ids=" ".join)
@pytest.mark.parametrize("texts", [{}, KEPT, {"README.md": PAGE}], ids=["empty", "others", "ours"])
def test_an_existing_folder_is_cookiecutters_own_error(home, template, project, flags, texts):
    write(project, texts)
    before = snapshot(home.work)
    done = home.cookiecutter(template, *flags)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout == 'Error: "my_service" directory already exists\n'
    assert snapshot(home.work) == before


# With -f


def linked(target):
    return lambda path: path.symlink_to(target)


KINDS = {
    "a file": ("README.md", lambda path: path.write_text("# Mine\n")),
    "an empty file": (".env.example", lambda path: path.touch()),
    "a page in templates": ("templates", lambda path: write(path, {"shop/page.html": PAGE})),
    "a workflow": (".github", lambda path: write(path, {"workflows/mine.yml": "on: push\n"})),
    "an empty folder": ("tests", lambda path: path.mkdir()),
    "a folder in the place of a file": ("Procfile", lambda path: write(path, {"a": "b\n"})),
    "a file in the place of a folder": ("script", lambda path: path.write_text("#!/bin/sh\n")),
    "the package of settings": ("config", lambda path: write(path, {"models.py": "x = 1\n"})),
    "a file named like that": ("config", lambda path: path.write_text("notes\n")),
    "a link to a file": ("README.md", linked("../elsewhere/README.md")),
    "a link to a folder": ("templates", linked("../elsewhere")),
    "a link to nothing": ("manage.py", linked("nowhere")),
    "a link to itself": ("pyproject.toml", linked("pyproject.toml")),
    "a file of another target": ("render.yaml", lambda path: path.write_text("services: []\n")),
    "the marker as a link": (MARKER, linked("../elsewhere/README.md")),
}


@pytest.mark.parametrize(
    ("kind", "flags"), [*((kind, ["-f"]) for kind in KINDS), ("a page in templates", ["-f", "-s"])]
)
def test_a_name_that_the_project_would_write_is_refused(home, template, project, kind, flags):
    name, make = KINDS[kind]
    write(home.work / "elsewhere", {"README.md": "# Another\n"})
    write(project, KEPT)
    make(project / name)
    before = snapshot(home.work)
    done = home.cookiecutter(template, *flags, answers={"deploy_target": "procfile"})
    refused(done, f"already holds {name}, ", "and run again" if name == MARKER else ". Move away")
    assert snapshot(home.work) == before


def test_another_case_of_a_name_is_refused_where_it_is_the_same_file(home, template, project):
    for name in ("readme.md", "TEMPLATES", "My_Service", "incomplete.TXT"):
        write(project, {name: PAGE})
        if not (project / name.swapcase()).exists():
            pytest.skip("NOT TESTED: this file system tells README.md and readme.md apart")
        before = snapshot(home.work)
        refused(home.cookiecutter(template, "-f"), "already holds ")
        assert snapshot(home.work) == before
        (project / name).unlink()


def test_every_name_that_any_project_has_at_the_top_is_refused(home, template, project, fresh):
    names = {path.split("/")[0] for target in TARGETS for path in fresh(deploy_target=target)}
    write(project, dict.fromkeys(names, "mine\n"))
    before = snapshot(home.work)
    done = home.cookiecutter(template, "-f")
    refused(done, f"already holds .env.example, .github, .gitignore and {len(names) - 3} more, ")
    assert len(names) > 15
    assert snapshot(home.work) == before


def test_a_refusal_tells_of_the_answers_and_of_the_folder(home, template, project):
    write(project, {"README.md": PAGE})
    before = snapshot(home.work)
    done = home.cookiecutter(template, "-f", answers=BAD)
    assert done.stderr.count("\n  - ") == 2
    assert "cert_strictness 'required' cannot work" in done.stderr
    assert "already holds README.md, which would be overwritten or deleted. Move" in done.stderr
    assert snapshot(home.work) == before


@pytest.mark.parametrize(
    ("target", "flags"), [*((target, ["-f"]) for target in TARGETS), (TARGETS[0], ["-f", "-s"])]
)
def test_a_folder_with_other_things_gets_the_project(home, template, project, fresh, target, flags):
    write(project, KEPT)
    before, others = kept(project), tree(project)
    done = home.cookiecutter(template, *flags, answers={"deploy_target": target})
    assert (done.returncode, done.stderr) == (0, "")
    assert kept(project) == before
    assert tree(project) == fresh(deploy_target=target) | others


def test_a_project_cannot_be_generated_over_itself(home, template, project, fresh):
    project.rmdir()
    for flags in ([], ["-f"], ["-f", "-s"]):
        before = snapshot(home.work)
        done = home.cookiecutter(template, *flags)
        if flags:
            assert "To renew a project of this template, run `cruft update`." in refused(done)
            assert snapshot(home.work) == before
    assert tree(project) == fresh()


# Something else stands where the folder should be


def test_a_file_in_the_place_of_the_folder_stays(home, template, project):
    project.rmdir()
    project.write_text("not a folder\n")
    before = snapshot(home.work)
    done = home.cookiecutter(template)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout == 'Error: "my_service" directory already exists\n'
    done = home.cookiecutter(template, "-f")
    assert done.returncode == 1
    end = f"Hook script failed (error: [Errno 20] Not a directory: '{project}')\n"
    assert done.stdout.endswith(end)
    assert hook_frames(done) == []
    assert snapshot(home.work) == before


@pytest.mark.parametrize("flags", [[], ["-f"]], ids=["", "-f"])
def test_a_link_to_nothing_in_the_place_of_the_folder_stays(home, template, project, flags):
    project.rmdir()
    project.symlink_to("nowhere")
    before = snapshot(home.work)
    done = home.cookiecutter(template, *flags)
    assert done.returncode == 1
    assert done.stderr.endswith("OSError: Unable to create directory at my_service\n")
    assert hook_frames(done) == []
    assert snapshot(home.work) == before


def test_a_link_to_a_folder_is_followed(home, template, project, fresh):
    project.rename(home.work / "elsewhere")
    project.symlink_to("elsewhere")
    write(project, KEPT | {"templates/page.html": PAGE})
    before = snapshot(home.work)
    refused(home.cookiecutter(template, "-f"), "already holds templates, ")
    assert snapshot(home.work) == before
    shutil.rmtree(project / "templates")
    before, others = kept(project), tree(project)
    assert home.cookiecutter(template, "-f").returncode == 0
    assert project.is_symlink()
    assert (kept(project), tree(project)) == (before, fresh() | others)


@pytest.mark.parametrize("flags", [[], ["-f"]], ids=["", "-f"])
def test_an_output_folder_that_is_not_there_is_made(home, template, fresh, flags):
    done = home.cookiecutter(template, "-o", "new/deep", *flags)
    assert done.returncode == 0
    assert tree(home.work / "new" / "deep" / "my_service") == fresh()


@pytest.mark.parametrize("flags", [[], ["-f"]], ids=["", "-f"])
def test_a_refusal_leaves_of_an_output_folder_what_cookiecutter_made(home, template, flags):
    failed_hook(
        home.cookiecutter(template, "-o", "new/deep", *flags, answers=BAD), "pre_gen_project"
    )
    assert tree(home.work) == {"new": None, "new/deep": None}


# --keep-project-on-failure


def test_a_refusal_keeps_an_empty_folder_when_told_to_keep(home, template):
    done = home.cookiecutter(template, "--keep-project-on-failure", answers=BAD)
    failed_hook(done, "pre_gen_project")
    assert tree(home.work) == {"my_service": None}


def test_a_project_that_is_not_whole_is_removed(home, broken):
    done = home.cookiecutter(broken)
    failed_hook(done, "post_gen_project")
    assert "  - manage.py cannot be parsed: " in done.stderr
    assert tree(home.work) == {}


def test_a_project_that_is_not_whole_says_so_when_told_to_keep(home, broken, fresh):
    done = home.cookiecutter(broken, "--keep-project-on-failure")
    failed_hook(done, "post_gen_project")
    found = tree(home.work / "my_service")
    marker = found.pop(MARKER).decode("ascii")
    assert marker.startswith("Cookiecutter has not finished this project: ")
    assert "generate the project again.\n" in marker
    assert found == fresh() | {"manage.py": b"print 'Python 2'\n"}


def test_what_fails_in_the_owners_folder_keeps_what_was_there(home, broken, template, project):
    write(project, KEPT)
    before = kept(project)
    failed_hook(home.cookiecutter(broken, "-f"), "post_gen_project")
    assert kept(project) == before
    after = snapshot(home.work)
    done = home.cookiecutter(template, "-f")
    refused(done, f"already holds {MARKER}, because an earlier run did not finish there. ")
    assert snapshot(home.work) == after


def test_nobody_is_told_to_delete_what_is_their_own(home, broken, template, project, fresh):
    write(project, KEPT)
    others = tree(project)
    home.cookiecutter(broken, "-f")
    marker = (project / MARKER).read_text("utf-8")
    assert "\nDelete this folder, or everything in it that is not your own, and generate " in marker
    told = home.cookiecutter(template, "-f").stderr
    assert ". Delete the folder, or everything in it that is not your own, and run again.\n" in told
    # Do what the message says.
    for path in project.iterdir():
        if path.name not in {name.split("/")[0] for name in KEPT}:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert tree(project) == others
    assert home.cookiecutter(template, "-f").returncode == 0
    assert tree(project) == fresh() | others


# --accept-hooks no

MINE = {
    "README.md": "# Mine\n",
    "templates/base.html": PAGE,
    "templates/mine.html": PAGE,
    "templates/registration/mine.html": PAGE,
    "templates/shop/page.html": PAGE,
    ".github/mine.yml": "on: push\n",
    ".github/workflows/mine.yml": "on: push\n",
    "tests/test_mine.py": "x = 1\n",
    "config/models.py": "x = 1\n",
}
SAME_NAME = {"README.md", "templates/base.html"}


def lost(folder, before):
    """Return the owner's files whose content has changed, and those that are gone."""
    after = tree(folder)
    changed = {name for name in MINE if name in after and after[name] != before[name]}
    return changed, {name for name in MINE if name not in after}


def test_without_hooks_the_project_is_the_same(home, template, fresh):
    done = home.cookiecutter(template, "--accept-hooks", "no")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert tree(home.work / "my_service") == fresh()


def test_without_hooks_an_existing_folder_is_still_an_error(home, template, project):
    write(project, MINE)
    before = snapshot(home.work)
    done = home.cookiecutter(template, "--accept-hooks", "no")
    assert done.stdout == 'Error: "my_service" directory already exists\n'
    assert snapshot(home.work) == before


def test_without_hooks_f_overwrites_what_has_the_same_name_and_no_more(home, template, project):
    write(project, MINE)
    before = tree(project)
    assert home.cookiecutter(template, "-f", "--accept-hooks", "no").returncode == 0
    assert lost(project, before) == (SAME_NAME, set())


def test_without_hooks_s_keeps_all_but_what_is_copied(home, template, project):
    write(project, MINE)
    before = tree(project)
    assert home.cookiecutter(template, "-f", "-s", "--accept-hooks", "no").returncode == 0
    assert lost(project, before) == ({"templates/base.html"}, set())


def test_patterns_of_whole_folders_would_delete_the_owners(home, template, tmp_path, project):
    """Cookiecutter deletes a copied folder first, so `_copy_without_render` names files only."""
    folder = tmp_path / "older"
    shutil.copytree(template, folder)
    context = json.loads((folder / "cookiecutter.json").read_text())
    context["_copy_without_render"] = [".github/*", "templates/*", "requirements*.txt"]
    (folder / "cookiecutter.json").write_text(json.dumps(context))
    write(project, MINE)
    before = tree(project)
    assert home.cookiecutter(folder, "-f", "--accept-hooks", "no").returncode == 0
    _, deleted = lost(project, before)
    assert deleted == {".github/workflows/mine.yml", "templates/registration/mine.html"}


# Disks


def test_a_read_only_folder_gets_nothing(home, template, project, tmp_path):
    project.rmdir()
    done = home.run(read_only(home.work, empty(tmp_path), home.command(template)))
    assert done.returncode == 1
    assert done.stderr.endswith("OSError: Unable to create directory at my_service\n")
    assert hook_frames(done) == []
    assert tree(home.work) == {}


def test_a_read_only_folder_of_the_owner_is_refused(home, template, project, tmp_path):
    write(project, KEPT)
    before = snapshot(home.work)
    done = home.run(read_only(home.work, empty(tmp_path), home.command(template, "-f")))
    failed_hook(done, "pre_gen_project")
    reason = f"No file can be written into '{project}': Read-only file system."
    assert done.stderr.startswith(f"Nothing was generated, because:\n  - {reason}\n(")
    assert snapshot(home.work) == before


@pytest.mark.parametrize("free", [0, 1, 20])
def test_a_full_disk_keeps_what_was_there(home, template, project, tmp_path, free):
    write(project, KEPT)
    before, names = kept(project), set(tree(project))
    copied, disk = empty(tmp_path), empty(tmp_path)
    command = home.command(template, "-f", "-o", str(disk))
    done = home.run(small_disk(disk, free, home.work, copied, command))
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert hook_frames(done) == []
    assert kept(copied / "my_service") == before
    if free == 0:
        assert set(tree(copied / "my_service")) == names
    else:
        assert MARKER in tree(copied / "my_service")
