"""A generated project follows the template: real cruft, real merges, the README's four lines."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness.answers import CONTEXT, QUESTIONS, ROOT, ROWS, check_keys, resolved, varied
from harness.cli import SECONDS, Home, tree

NAME = "cookiecutter-rediss"
ADDRESS = f"https://github.com/org/{NAME}"
ENV = b"DEBUG=true\nSECRET_KEY=" + b"0123456789abcdef" * 4 + b"\n"
DONE = "Good work! Project's cruft has been updated and is as clean as possible!\n"
SERVICE = "{{cookiecutter.project_slug}}"
DEV = "script/dev"
WRITING = "writing .env with a fresh SECRET_KEY"
BLOCK = f'if [ ! -f .env ]; then\n    say "{WRITING}"'


def replace(path, old, new):
    """Replace `old`, which stands in the text file once, by `new`."""
    text = path.read_text("utf-8")
    assert text.count(old) == 1, (path, old)
    path.write_text(text.replace(old, new), "utf-8")


def project_files(root):
    """Return {path: bytes} of what the template wrote, not of Git, cruft and the owner."""
    files = {path: data for path, data in tree(root).items() if data is not None}
    return {
        path: data
        for path, data in files.items()
        if not path.startswith(".git/") and path not in (".cruft.json", ".env")
    }


def debris(root):
    """Return the paths that a failed merge, or a hook, has left."""
    ends = (".rej", ".orig", "INCOMPLETE.txt")
    return [
        path
        for path, data in project_files(root).items()
        if path.endswith(ends) or re.search(rb"^(<<<<<<<|>>>>>>>) ", data, re.MULTILINE)
    ]


class Owner:
    """Somebody with a project under Git and a `.env`, and the template it is made from."""

    def __init__(self, home, repository, project):
        self.home, self.repository, self.project = home, repository, project
        # Git finds in that folder what ADDRESS names; its name has the .git of cookiecutter's gh:.
        rule = f"url.file://{repository.parent}/.insteadOf"
        home.git(repository, "config", "--global", rule, ADDRESS.removesuffix(NAME))

    def cruft(self, *arguments):
        return self.home.cruft(*arguments, cwd=self.project)

    def update(self, *flags, status=0):
        # Without the flag cruft 2.16 asks a question that crashes with today's typer.
        done = self.cruft("update", "--skip-apply-ask", *flags)
        assert done.returncode == status, done.stdout + done.stderr
        return done

    def answer(self, status=0, **answers):
        """Update with other answers."""
        check_keys(answers, QUESTIONS)
        return self.update("--variables-to-update", json.dumps(answers), status=status)

    def adopt(self):
        """Put the project under Git, with a `.env` that Git does not see."""
        self.home.git(self.project, "init", "--quiet")
        self.commit("Generated")
        (self.project / ".env").write_bytes(ENV)
        assert self.status() == []

    def commit(self, message):
        return self.home.commit(self.project, message)

    def release(self):
        """Commit what was changed in the template."""
        return self.home.commit(self.repository, "Next")

    def template(self, path):
        return self.repository / SERVICE / path

    def status(self):
        return self.home.git(self.project, "status", "--short", "--untracked-files").splitlines()

    def cruft_file(self):
        return json.loads((self.project / ".cruft.json").read_text("utf-8"))

    def context(self):
        return self.cruft_file()["context"]["cookiecutter"]

    def check_settled(self):
        """Assert that an update left nothing to do: no debris, `.env` unchanged, cruft content."""
        assert debris(self.project) == []
        assert (self.project / ".env").read_bytes() == ENV
        done = self.cruft("check")
        assert done.returncode == 0, done.stdout
        assert done.stdout.startswith("SUCCESS")


def change_facts(repository, provider, **facts):
    """Change facts of a provider in a copy of the template."""
    check_keys(facts, ROWS[provider])
    path = repository / "cookiecutter.json"
    context = json.loads(path.read_text("utf-8"))
    context["_redis_providers"][provider].update(facts)
    path.write_text(json.dumps(context, indent=4, ensure_ascii=False) + "\n", "utf-8")


@pytest.fixture(scope="module")
def first(template, tmp_path_factory):
    """An owner with a project that `cruft create` made with the defaults; no test changes it."""
    folder = tmp_path_factory.mktemp("first")
    home = Home(folder / "user")
    repository = home.repository(template, folder / f"{NAME}.git")
    owner = Owner(home, repository, home.work / "my_service")
    done = home.cruft("create", ADDRESS, "--no-input")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""  # Only cookiecutter shows the hooks' summary.
    owner.adopt()
    return owner


@pytest.fixture
def owner(first, tmp_path):
    """A copy of `first` to change."""
    home = Home(tmp_path / "user")
    repository = shutil.copytree(first.repository, tmp_path / f"{NAME}.git")
    return Owner(home, repository, shutil.copytree(first.project, home.work / "my_service"))


# Nothing changed


def test_a_new_project_is_up_to_date(owner, baked):
    assert project_files(owner.project) == baked().files
    owner.check_settled()
    done = owner.cruft("diff", "--exit-code")
    assert (done.returncode, done.stdout) == (0, "")
    assert owner.update().stdout.startswith("Nothing to do")
    assert owner.status() == []


def test_what_cruft_stores_bothers_nobody(owner, post_gen, tmp_path):
    text = (owner.project / ".cruft.json").read_text("utf-8")
    assert owner.cruft_file()["template"] == ADDRESS
    assert str(tmp_path.parent) not in text  # No path of this machine is in it.
    assert owner.context()["_redis_providers"] == ROWS
    assert owner.home.git(owner.project, "ls-files", ".cruft.json") == ".cruft.json\n"
    assert all(pattern.search(text) is None for pattern in post_gen.SECRETS.values())
    assert post_gen.problems(owner.project, owner.context()) == []
    for command in (["check"], ["format", "--check"]):
        ruff = [sys.executable, "-m", "ruff", *command, "--no-cache", "--quiet", "."]
        done = subprocess.run(ruff, cwd=owner.project, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


# The template changed


def test_a_change_of_the_template_is_merged_with_the_owners(owner):
    script, base = owner.project / DEV, owner.project / "templates" / "base.html"
    # This is two lines from the template's change, where a patch would miss its context.
    replace(script, "source script/venv\n", "source script/venv  # ours\n")
    base.write_text("ours\n")
    (owner.project / "ours.py").write_text("OURS = 1\n")
    (owner.project / "templates" / "home.html").unlink()
    owner.commit("Ours")
    replace(owner.template(DEV), BLOCK, BLOCK.replace("writing", "now writing"))
    replace(owner.template("templates/home.html"), "{% extends", "<!-- next -->{% extends")
    owner.template("templates/next.html").write_text("next\n")
    owner.release()

    found = owner.cruft("check")
    assert (found.returncode, found.stdout[:7]) == (1, "FAILURE")
    shown = owner.cruft("diff").stdout
    assert "-source script/venv  # ours\n" in shown and "home.html" not in shown
    before = project_files(owner.project)
    done = owner.update()
    assert (done.stdout, done.stderr) == (DONE, "")

    text = script.read_text()
    assert "source script/venv  # ours\n" in text and f"now {WRITING}" in text
    assert script.stat().st_mode & 0o111
    after = project_files(owner.project)
    assert {path for path in {*before, *after} if before.get(path) != after.get(path)} == {
        DEV,
        "templates/next.html",
    }
    owner.check_settled()


@pytest.mark.parametrize("committed", varied([True, False]))
def test_a_true_conflict_keeps_the_owners_text_and_is_shown(owner, committed):
    # Git cannot merge a file that it has never seen as it was generated.
    script = owner.project / DEV
    if not committed:
        shutil.rmtree(owner.project / ".git")
        owner.home.git(owner.project, "init", "--quiet")
    replace(script, WRITING, "OURS")
    owner.commit("Ours")
    ours = script.read_text()
    replace(owner.template(DEV), WRITING, "THEIRS")
    owner.template("templates/next.html").write_text("next\n")
    owner.release()

    done = owner.update()
    assert done.stdout.endswith(DONE)  # Here, too.
    assert (owner.project / "templates" / "next.html").read_text() == "next\n"
    assert (owner.project / ".env").read_bytes() == ENV
    if committed:
        assert f"Applied patch to '{DEV}' with conflicts." in done.stderr
        assert f"UU {DEV}" in owner.status()
        assert debris(owner.project) == [DEV]
        text = script.read_text()
        mine = '<<<<<<< ours\n    say "OURS"\n=======\n    say "THEIRS"\n>>>>>>> theirs\n'
        assert text.replace(mine, '    say "OURS"\n') == ours
    else:
        assert "may have *.rej files" in done.stdout
        assert debris(owner.project) == [f"{DEV}.rej"]
        assert script.read_text() == ours


@pytest.mark.all
def test_a_first_commit_after_the_first_edit_is_enough_without_a_conflict(owner):
    shutil.rmtree(owner.project / ".git")
    owner.home.git(owner.project, "init", "--quiet")
    script = owner.project / DEV
    script.write_text(script.read_text() + "# ours\n")
    owner.commit("Generated and changed")
    replace(owner.template(DEV), WRITING, "THEIRS")
    owner.release()
    owner.update()
    text = script.read_text()
    assert "THEIRS" in text and text.endswith("# ours\n")
    owner.check_settled()


def test_what_is_not_committed_is_not_touched(owner):
    (owner.project / "ours.py").write_text("OURS = 1\n")
    owner.template("templates/next.html").write_text("next\n")
    owner.release()
    before = tree(owner.project)
    assert "cannot apply updates on an unclean git project" in owner.update(status=1).stdout
    assert project_files(owner.project) == {k: before[k] for k in project_files(owner.project)}
    assert owner.status() == ["?? ours.py"]


# A fact changed

FACTS = {"databases": 7, "max_connections": 77, "notes": "A note of the next release."}


@pytest.mark.parametrize(
    "flags", varied([[], ["--refresh-private-variables"]]), ids=["plain", "refresh"]
)
def test_a_changed_fact_arrives_with_every_update(owner, flags):
    settings = owner.project / "config" / "settings.py"
    replace(settings, "from pathlib import Path\n", "from pathlib import Path  # ours\n")
    owner.commit("Ours")
    change_facts(owner.repository, "render", **FACTS)
    owner.release()
    before = project_files(owner.project)
    done = owner.update(*flags)
    assert (done.stdout, done.stderr) == (DONE, "")

    context, after = owner.context(), project_files(owner.project)
    assert context["_redis_providers"]["render"] == ROWS["render"] | FACTS
    assert (context["__databases"], context["__max_connections"]) == ("7", "77")
    assert {path for path in {*before, *after} if before.get(path) != after.get(path)} == {
        ".env.example",
        "README.md",
        "config/settings.py",
    }
    text = settings.read_text()
    assert '"REDIS_DATABASES": "7"' in text and '"REDIS_MAX_CONNECTIONS": "77"' in text
    assert "from pathlib import Path  # ours\n" in text
    assert "A note of the next release." in (owner.project / "README.md").read_text()
    owner.check_settled()


@pytest.mark.all
def test_facts_of_another_provider_change_nothing_but_the_record(owner):
    change_facts(owner.repository, "aiven", **FACTS)
    owner.release()
    owner.update()
    assert owner.context()["_redis_providers"]["aiven"] == ROWS["aiven"] | FACTS
    assert owner.status() == [" M .cruft.json"]
    owner.check_settled()


def test_a_fact_of_the_users_configuration_stands_in_the_record(owner):
    """cruft records all facts. It does not say where the template is, so no hook can compare."""
    change_facts(owner.repository, "aiven", **FACTS)
    owner.home.configure(default_context={"_redis_providers": {"render": {"databases": 7}}})
    owner.release()
    owner.update()
    assert owner.context()["_redis_providers"]["render"] == ROWS["render"] | {"databases": 7}


# An answer changed

OTHERS = [
    {"redis_provider": "upstash"},
    {"redis_provider": "scalingo", "deploy_target": "procfile"},
    {"redis_provider": "digitalocean", "cert_strictness": "none"},
    {"project_name": "Shop One", "project_slug": "shop"},
]


@pytest.mark.parametrize("answers", varied(OTHERS), ids=lambda answers: "-".join(answers.values()))
def test_another_answer_gives_what_a_new_project_has(owner, baked, answers):
    done = owner.answer(**answers)
    assert (done.stdout, done.stderr) == (DONE, "")
    assert project_files(owner.project) == baked(**answers).files
    right = resolved(**answers)
    context = owner.context()
    assert {key: context[key] for key in right} == right
    assert {key for key in CONTEXT if key.startswith("__") and key != "__prompts__"} <= set(right)
    owner.check_settled()


def test_another_answer_and_the_owners_changes_are_merged(owner):
    base = owner.project / "templates" / "base.html"
    base.write_text("ours\n")
    settings = owner.project / "config" / "settings.py"
    replace(settings, "from pathlib import Path\n", "from pathlib import Path  # ours\n")
    owner.commit("Ours")
    owner.answer(redis_provider="upstash")
    assert base.read_text() == "ours\n"
    text = settings.read_text()
    assert "from pathlib import Path  # ours\n" in text
    assert '"CELERY_POLLING_INTERVAL": "10"' in text
    owner.check_settled()


REFUSED = [
    (
        {"redis_provider": "heroku", "cert_strictness": "required"},
        "cert_strictness 'required' cannot work out of the box with redis_provider 'heroku'",
    ),
    ({"project_slug": "con"}, "project_slug 'con' is a device on Windows"),
    ({"deploy_target": "moon"}, "moon provided for choice variable deploy_target"),
]


@pytest.mark.parametrize(("answers", "reason"), REFUSED, ids=["pair", "slug", "choice"])
def test_a_refused_answer_changes_nothing(owner, answers, reason):
    before = tree(owner.project)
    done = owner.answer(**answers, status=1)
    assert reason in done.stderr
    assert (owner.status(), owner.cruft("check").returncode) == ([], 0)
    after = tree(owner.project)
    # `git status` goes by the index.
    assert {path for path in before if before[path] != after.get(path)} <= {".git/index"}
    assert set(after) == set(before)


def test_the_helper_rejects_a_key_that_cruft_would_ignore(owner):
    with pytest.raises(ValueError, match="not in cookiecutter.json: redis_provder"):
        owner.answer(redis_provder="upstash")
    with pytest.raises(ValueError, match="not in cookiecutter.json: database"):
        change_facts(owner.repository, "render", database=1)
    # cruft does this by itself.
    assert owner.update("--variables-to-update", '{"redis_provder": "upstash"}').stdout == DONE
    assert owner.status() == []


# A project that plain cookiecutter made


def linked(owner, *flags):
    """Make a project with cookiecutter, then let the template move on, then `cruft link`."""
    answers = {"project_name": "Shop One", "project_slug": "shop", "redis_provider": "upstash"}
    done = owner.home.cookiecutter(f"gh:org/{NAME}", answers=answers)
    assert done.returncode == 0, done.stderr
    owner.project = owner.home.work / "shop"
    owner.adopt()
    replace(owner.template(DEV), WRITING, "THEIRS")
    owner.release()
    done = owner.cruft(
        "link", ADDRESS, "--no-input", "--extra-context", json.dumps(answers), *flags
    )
    assert done.returncode == 0, done.stderr
    assert owner.status() == ["?? .cruft.json"]
    owner.commit("Linked")


def test_a_project_of_cookiecutter_is_linked_and_updated(owner):
    clone = owner.home.home / ".cookiecutters" / NAME
    commit = owner.home.git(owner.repository, "rev-parse", "HEAD").strip()
    linked(owner, "--checkout", commit)
    # The README sends people there for the commit.
    assert owner.home.git(clone, "rev-parse", "HEAD").strip() == commit
    assert owner.cruft("diff").stdout == ""
    script = owner.project / DEV
    script.write_text(script.read_text() + "# ours\n")
    owner.commit("Ours")
    assert owner.update().stdout == DONE
    text = script.read_text()
    assert "THEIRS" in text and text.endswith("# ours\n")
    assert owner.context()["redis_provider"] == "upstash"
    owner.check_settled()


@pytest.mark.all
def test_a_link_to_a_later_commit_misses_what_came_before_it(owner):
    linked(owner)
    assert owner.update().stdout.startswith("Nothing to do")
    assert "THEIRS" not in (owner.project / DEV).read_text()
    assert "THEIRS" in owner.cruft("diff").stdout


# The README


def commands(text):
    """Return the shell lines in the README's answer to "Updates?"."""
    _, found, rest = text.partition("**Updates?**")
    assert found, "README.md has no **Updates?**"
    answer = re.split(r"^\*\*", rest, maxsplit=1, flags=re.MULTILINE)[0]
    return re.findall(r"^    (\S.*)$", answer, re.MULTILINE)


LINES = commands((ROOT / "README.md").read_text("utf-8"))


def type_in(owner, line, folder, keys=""):
    """Run a line as it stands, with Enter for every question after `keys`."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run(
        ["bash", "-c", line],
        cwd=folder,
        env=owner.home.env,
        input=keys + "\n" * 20,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_the_lines_of_the_readme_work_as_written(owner, baked, tmp_path):
    create, link, update, ask = LINES
    assert [line.split("  ")[0] for line in LINES] == [
        f"uvx cruft create {ADDRESS}",
        f"uvx cruft link {ADDRESS}",
        "uvx cruft update -y",
        "uvx cruft update -y -i",
    ]
    # The real uvx would download what is installed here.
    uvx = tmp_path / "bin" / "uvx"
    uvx.parent.mkdir()
    uvx.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m "$@"\n')
    uvx.chmod(0o755)
    owner.home.env["PATH"] = f"{uvx.parent}:{owner.home.env['PATH']}"

    created = owner.home.work / "new"
    type_in(owner, create, created)
    made = owner.home.cookiecutter(f"gh:org/{NAME}", "--output-dir", "old")
    assert made.returncode == 0, made.stderr
    projects = [created / "my_service", owner.home.work / "old" / "my_service"]
    for project in projects:
        owner.project = project
        owner.adopt()
    type_in(owner, link, owner.project)
    owner.commit("Linked")

    replace(owner.template(DEV), WRITING, "THEIRS")
    owner.release()
    for owner.project in projects:
        type_in(owner, update, owner.project)
        assert "THEIRS" in (owner.project / DEV).read_text()
        owner.check_settled()
        owner.commit("Updated")
        # The third choice of the fifth question.
        procfile = CONTEXT["deploy_target"].index("procfile") + 1
        type_in(owner, ask, owner.project, "\n" * 4 + f"{procfile}\n")
        expected = baked(deploy_target="procfile").files
        assert set(project_files(owner.project)) == set(expected)
        owner.check_settled()


def test_only_the_lines_of_that_answer_are_taken_from_the_readme():
    text = "    no\n\n**Updates?** So:\n\n    a 1  # b\n    c\n\nand\n\n**Other?**\n\n    no\n"
    assert commands(text) == ["a 1  # b", "c"]
    with pytest.raises(AssertionError, match="no \\*\\*Updates"):
        commands("**Update?**\n\n    a\n")


# The helpers themselves


def test_debris_of_every_kind_is_seen(owner):
    assert debris(owner.project) == []
    for name in ("a.rej", "b.orig", "INCOMPLETE.txt"):
        (owner.project / name).write_text("")
    (owner.project / "c.py").write_text("x\n<<<<<<< ours\n")
    (owner.project / "d.py").write_text("=======\n<<<<<<<< no\n")
    assert sorted(debris(owner.project)) == ["INCOMPLETE.txt", "a.rej", "b.orig", "c.py"]


@pytest.mark.parametrize("harm", ["debris", "env", "behind"])
def test_an_update_that_is_not_settled_is_seen(owner, harm):
    if harm == "debris":
        (owner.project / "a.rej").write_text("")
    if harm == "env":
        (owner.project / ".env").write_bytes(ENV + b"x")
    if harm == "behind":
        owner.template("templates/next.html").write_text("next\n")
        owner.release()
    with pytest.raises(AssertionError):
        owner.check_settled()


def test_a_replacement_that_finds_nothing_is_seen(tmp_path):
    path = Path(tmp_path, "a.txt")
    path.write_text("one\n")
    with pytest.raises(AssertionError):
        replace(path, "two", "three")
