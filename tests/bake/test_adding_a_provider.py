"""docs/adding-a-provider.md, followed on a copy: one row, one label, two commands."""

import json
import os
import shutil
import sys

import pytest

from harness.answers import CONTEXT, ROOT, SERVICE
from harness.processes import run

KEY = "example_cloud"
LABEL = "Example Cloud                   TLS, verified by its CA; in your VPC"
ROW = CONTEXT["_redis_providers"]["elasticache"] | {
    "label": "Example Cloud",
    "url_env": "EXAMPLE_REDIS_URL",
    "url_form": "rediss://default:PASSWORD@HOST.example.com:7000",
    "port": 7000,
    "ca": "provider_file",
    "databases": 3,
    "idle_timeout_s": 90,
    "max_connections": 12,
    "eviction": "volatile-ttl",
    "refused_commands": ["CONFIG"],
    "notes": "Nobody sells this one, and it is here to be added.",
    "believed": ["idle_timeout_s"],
    "source": "example.com/docs/redis",
}
PARTS = (
    ".github",
    "README.md",
    "cookiecutter.json",
    "pyproject.toml",
    "docs",
    "harness",
    "hooks",
    "script",
    "tests",
)
# The tests that judge rows, labels, and the questions as a terminal shows them.
JUDGES = (
    "tests/unit/test_facts.py",
    "tests/unit/test_security_page.py::test_the_page_is_current",
    "tests/bake/test_prompts.py::test_enter_alone_takes_the_defaults",
    "tests/bake/test_prompts.py::test_typed_answers_arrive",
    "tests/bake/test_prompts.py::test_a_wrong_choice_is_asked_again",
    "tests/bake/test_prompts.py::test_refused_answers_are_refused_all_at_once",
    "tests/bake/test_prompts.py::test_the_words_follow_the_rules_as_shown",
    "tests/bake/test_prompts.py::test_every_question_is_whole_on_24_rows",
    "tests/bake/test_prompts.py::test_a_label_claims_what_the_facts_say",
)


@pytest.fixture
def copy(tmp_path):
    """A copy of the template to change."""
    folder = tmp_path / "template"
    debris = shutil.ignore_patterns("__pycache__", ".*_cache")
    shutil.copytree(SERVICE, folder / SERVICE.name, ignore=debris)
    for path in (ROOT / name for name in PARTS):
        if path.is_dir():
            shutil.copytree(path, folder / path.name, ignore=debris)
        else:
            shutil.copy(path, folder)
    return folder


def add(folder, label):
    """Do the page's first step. The row comes second, because no test may rely on a number."""
    path = folder / "cookiecutter.json"
    context = json.loads(path.read_text("utf-8"))
    rows, labels = context["_redis_providers"], context["__prompts__"]["redis_provider"]
    context["redis_provider"].insert(1, KEY)
    context["_redis_providers"] = second(rows, KEY, ROW)
    if label:
        question = labels.pop("__prompt__")
        words = {"__prompt__": question} | second(labels, KEY, label)
        context["__prompts__"]["redis_provider"] = words
    path.write_text(json.dumps(context, indent=4), "utf-8")


def second(things, key, value):
    (first, *others) = things.items()
    return dict([first, (key, value), *others])


def command(folder, *arguments, **settings):
    """Run a command in the copy; return the finished process."""
    env = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"} | settings
    return run([sys.executable, *arguments], cwd=folder, env=env, seconds=120)


def judged(folder, *judges, **settings):
    return command(folder, "-m", "pytest", "-q", "-p", "no:cacheprovider", *judges, **settings)


def test_a_row_and_a_label_and_two_commands_make_a_provider(copy, bake):
    add(copy, LABEL)
    written = command(copy, "-m", "script.providers_table")
    assert (written.returncode, written.stderr) == (0, "")
    done = judged(copy, *JUDGES, SCREENS="write")
    assert done.returncode == 0, done.stdout
    for name in ("defaults", "typed", "wrong_choices"):
        screen = (copy / "tests/bake/screens" / f"{name}.txt").read_text("utf-8")
        assert f"    2 - {LABEL}\n" in screen
    number = len(CONTEXT["redis_provider"])
    for page in ("README.md", "docs/decisions.md"):
        text = (ROOT / page).read_text("utf-8")
        assert f"{number} choices" in text
        expected = text.replace(f"{number} choices", f"{number + 1} choices")
        assert (copy / page).read_text("utf-8") == expected
    form = (copy / ".github/ISSUE_TEMPLATE/provider-fact.yml").read_text("utf-8")
    assert f"        - {KEY}\n" in form
    # The hooks run too: the row is one that they take.
    baked = bake(broken=copy, redis_provider=KEY, deploy_target="server")
    assert "EXAMPLE_REDIS_URL" in baked.text(".env.example")


def test_a_row_without_a_label_is_noticed(copy):
    add(copy, None)
    assert command(copy, "-m", "script.providers_table").returncode == 0
    done = judged(copy, "tests/unit/test_facts.py", "-k", "has_a_label")
    assert done.returncode == 1
    assert "redis_provider: the labels are not the choices, in order" in done.stdout
