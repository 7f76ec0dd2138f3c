"""bake(): the template as cookiecutter runs it, away from the user's own configuration."""

import importlib.util
import itertools
import json
import shutil
import signal
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from unittest import mock

import hypothesis
import pytest
from cookiecutter.main import cookiecutter

from harness import tallies
from harness.answers import CONTEXT, QUESTIONS, ROOT, SERVICE, check_keys
from harness.cli import Home

# How long an example takes depends on the machine, and no test is about that.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


def pytest_configure(config):
    tallies.register(config)


def pytest_addoption(parser):
    parser.addoption("--all", action="store_true", help="also run the tests marked `all`")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Leave out the tests marked `all`: slow ones, and what varies another test."""
    if config.option.all:
        return
    left_out = [item for item in items if item.get_closest_marker("all")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


@dataclass(frozen=True)
class Baked:
    """A baked project: its folder, and the context it was rendered from."""

    path: Path
    answers: dict

    @cached_property
    def files(self):
        """{path: bytes} of every file, with "/" in paths."""
        paths = (path for path in self.path.rglob("*") if path.is_file())
        return {path.relative_to(self.path).as_posix(): path.read_bytes() for path in paths}

    def text(self, name):
        return self.files[name].decode("utf-8")


def load_hook(name):
    """Import hooks/<name>.py unrendered."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "hooks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def pre_gen():
    return load_hook("pre_gen_project")


@pytest.fixture(scope="session")
def post_gen():
    return load_hook("post_gen_project")


@pytest.fixture(scope="session", autouse=True)
def interrupts():
    """Let children take interrupts, which they would ignore if pytest runs under `&` or nohup."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "SIGHUP"):  # Windows has none.
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture
def home(tmp_path):
    """A new user account for the real commands."""
    return Home(tmp_path / "user")


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    """A copy of the template without what ruff and Python leave in its folders."""
    folder = tmp_path_factory.mktemp("copy") / "template"
    debris = shutil.ignore_patterns("__pycache__", ".ruff_cache")
    for part in (ROOT / "hooks", SERVICE):
        shutil.copytree(part, folder / part.name, ignore=debris)
    shutil.copy(ROOT / "cookiecutter.json", folder)
    return folder


@pytest.fixture(scope="session")
def bake(template):
    """Bake anew: bake(**answers) -> Baked. A refusal raises FailedHookException.

    `private` overrides values that are not questions, `output` is the folder to bake into,
    `replay` a context to bake from instead of answers, `broken` another template.
    """
    whole = template
    numbers = itertools.count()

    with tempfile.TemporaryDirectory() as scratch:

        def bake(
            *, accept_hooks=True, private=None, output=None, replay=None, broken=None, **answers
        ):
            template = broken or whole
            check_keys(answers, QUESTIONS)
            check_keys(private or {}, CONTEXT)
            folder = Path(scratch, str(next(numbers)))
            output = output or folder / "output"
            for needed in (folder, output):
                needed.mkdir(parents=True, exist_ok=True)
            replays = folder / "replay"
            config = folder / "config.yaml"
            config.write_text(f"{{cookiecutters_dir: {folder}, replay_dir: {replays}}}\n")
            if replay:
                replays.mkdir()
                (replays / f"{template.name}.json").write_text(json.dumps({"cookiecutter": replay}))
            # Cookiecutter never deletes the hooks' rendered copies, so they go with this folder.
            with mock.patch.object(tempfile, "tempdir", str(folder)):
                project = cookiecutter(
                    str(template),
                    no_input=not replay,
                    extra_context=None if replay else {**answers, **(private or {})},
                    replay=bool(replay),
                    output_dir=str(output),
                    config_file=str(config),
                    accept_hooks=accept_hooks,
                )
            context = json.loads(next(replays.glob("*.json")).read_text())["cookiecutter"]
            return Baked(Path(project), context)

        yield bake


@pytest.fixture(scope="session")
def baked(bake):
    """Bake each combination of answers once, without hooks. Tests must not change the result."""
    projects = {}

    def baked(**answers):
        check_keys(answers, QUESTIONS)
        key = tuple(sorted(answers.items()))
        if key not in projects:
            projects[key] = bake(accept_hooks=False, **answers)
        return projects[key]

    return baked
