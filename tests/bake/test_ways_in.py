"""Every way to the template gives the same project: a folder, a clone, a zip file, cruft."""

import json
import shutil
from pathlib import Path

import pytest

from harness.answers import QUESTIONS, check_keys
from harness.cli import Home, tree

# None of these is a default.
ANSWERS = {
    "project_name": "Shop One",
    "project_slug": "shop",
    "redis_provider": "upstash",
    "cert_strictness": "optional",
    "deploy_target": "procfile",
}
NAME = "cookiecutter-rediss"
SCRIPTS = {"manage.py", "script/dev", "script/test"}


def whole(root):
    """Return {path: (bytes, executable)} of everything under `root`; a folder's bytes are None."""
    return {
        path: (data, data is not None and bool((root / path).stat().st_mode & 0o111))
        for path, data in tree(root).items()
    }


def differences(one, other):
    """Return the paths at which two results of `whole` differ."""
    return sorted(path for path in {*one, *other} if one.get(path) != other.get(path))


def made(done, project):
    """Return the project of a command that succeeded, as `whole` reads it."""
    assert done.returncode == 0, done.stdout + done.stderr
    return whole(project)


@pytest.fixture(scope="module")
def reference(template, tmp_path_factory):
    """The project that the template's folder gives."""
    home = Home(tmp_path_factory.mktemp("reference"))
    return made(home.cookiecutter(template, answers=ANSWERS), home.work / "shop")


@pytest.fixture
def repository(home, template, tmp_path):
    """A Git repository of the template, where `org/` stands for a hosting service."""
    return home.repository(template, tmp_path / "org" / f"{NAME}.git")


def next_release(home, repository):
    """Tag what is there as v1, then commit a change of one file."""
    home.git(repository, "tag", "v1")
    page = repository / "{{cookiecutter.project_slug}}" / "templates" / "home.html"
    page.write_text(page.read_text("utf-8") + "<!-- v2 -->\n", "utf-8")
    home.commit(repository, "Two")


def from_folder(home, repository):
    return home.cookiecutter(repository, answers=ANSWERS)


def from_relative_folder(home, repository):
    shutil.copytree(repository, home.work / "elsewhere" / NAME)
    return home.cookiecutter(Path("elsewhere", NAME), answers=ANSWERS)


def from_clone(home, repository):
    return home.cookiecutter(f"file://{repository}", answers=ANSWERS)


def from_zip_file(home, repository):
    # GitHub makes such a file by git archive, with one folder named after the branch.
    archive = home.work / "main.zip"
    top = f"--prefix={NAME}-main/"
    home.git(repository, "archive", "--format=zip", top, f"--output={archive}", "HEAD")
    return home.cookiecutter(archive, answers=ANSWERS)


def from_abbreviation(home, repository):
    home.configure(abbreviations={"ours": f"file://{repository.parent}/{{}}.git"})
    return home.cookiecutter(f"ours:{NAME}", answers=ANSWERS)


def from_address_in_the_readme(home, repository):
    # This is cookiecutter's own gh:, with a Git that finds GitHub in a folder.
    rule = f"url.file://{repository.parent.parent}/.insteadOf"
    home.git(repository, "config", "--global", rule, "https://github.com/")
    return home.cookiecutter(f"gh:org/{NAME}", answers=ANSWERS)


def from_tag(home, repository):
    next_release(home, repository)
    return home.cookiecutter(f"file://{repository}", "--checkout", "v1", answers=ANSWERS)


def from_cruft(home, repository):
    check_keys(ANSWERS, QUESTIONS)
    extra = json.dumps(ANSWERS)
    done = home.cruft("create", f"file://{repository}", "--no-input", "--extra-context", extra)
    if done.returncode == 0:
        (home.work / "shop" / ".cruft.json").unlink()
    return done


WAYS = [
    from_folder,
    from_relative_folder,
    from_clone,
    from_zip_file,
    from_abbreviation,
    from_address_in_the_readme,
    from_tag,
    from_cruft,
]


@pytest.mark.parametrize("way", WAYS)
def test_every_way_in_gives_the_same_project(home, repository, reference, way):
    result = made(way(home, repository), home.work / "shop")
    assert differences(result, reference) == []


def test_the_second_project_has_the_same_bytes_in_another_home_and_folder(
    home, template, reference
):
    place = home.work / "deep" / "er"
    done = home.cookiecutter(template, "--output-dir", str(place), answers=ANSWERS)
    assert differences(made(done, place / "shop"), reference) == []


def test_an_abbreviation_is_cloned_again_at_the_second_run(home, repository, reference):
    first = made(from_abbreviation(home, repository), home.work / "shop")
    next_release(home, repository)
    again = home.cookiecutter(f"ours:{NAME}", "--output-dir", "again", answers=ANSWERS)
    second = made(again, home.work / "again" / "shop")
    assert differences(first, reference) == []
    assert differences(first, second) == ["templates/home.html"]


def test_a_tag_that_does_not_exist_is_named(home, repository):
    done = home.cookiecutter(f"file://{repository}", "--checkout", "v9", answers=ANSWERS)
    assert done.returncode == 1
    assert "The v9 branch of repository" in done.stdout + done.stderr
    assert tree(home.work) == {}


def test_exactly_the_scripts_are_executable(reference):
    assert {path for path, (_, executable) in reference.items() if executable} == SCRIPTS


def test_the_comparison_sees_every_difference(home, template, reference):
    project = home.work / "shop"
    same = made(home.cookiecutter(template, answers=ANSWERS), project)
    assert differences(same, reference) == []

    (project / "script" / "dev").chmod(0o644)
    (project / "README.md").write_bytes((project / "README.md").read_bytes() + b" ")
    (project / "render.yaml").write_bytes(b"")
    (project / "empty").mkdir()
    (project / "Procfile").unlink()
    assert differences(whole(project), reference) == [
        "Procfile",
        "README.md",
        "empty",
        "render.yaml",
        "script/dev",
    ]
    with pytest.raises(AssertionError, match="redis_provider"):
        made(home.cookiecutter(template, answers={"redis_provider": "nowhere"}), project)
