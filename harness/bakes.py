"""How a bake ends, and what it leaves beside the project: for tests of answers and of hooks."""

import ast
import contextlib
import functools
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from cookiecutter.exceptions import FailedHookException, UndefinedVariableInTemplate
from cookiecutter.main import cookiecutter
from jinja2 import TemplateError

from harness.cli import unwrapped

HEAD = "Nothing was generated, because:"
NOTE = "(What follows is cookiecutter's own traceback; the reasons are above.)"

# Files of cookiecutter's own: the last answers, and each hook as it was rendered.
REPLAY = "home/.cookiecutter_replay"
HOOK = re.compile(rb'"""(Refuse answers that cannot work|Prove that what was written is complete)')


@dataclass
class Ended:
    """The end of a bake: a project, the reasons of a refusal, or cookiecutter's own error."""

    project: Path | None = None
    reasons: tuple = ()
    crash: str = ""
    output: str = ""
    error: str = ""


def reasons_of(error):
    """Return the reasons of a refusal. Raises AssertionError unless stderr begins with them."""
    told, note, _ = error.partition(NOTE)
    assert told.startswith(f"{HEAD}\n") and note, f"no refusal: {error}"
    text = unwrapped(told.removeprefix(f"{HEAD}\n"))
    lines = text.splitlines()
    assert lines and text == "".join(f"{line}\n" for line in lines), f"no sentences: {error}"
    for line in lines:
        assert re.fullmatch(r"  - \w.*\.", line) and line.isprintable(), f"no sentence: {line!r}"
    return tuple(line.removeprefix("  - ") for line in lines)


def leftovers(before, after, project=None):
    """Return where two trees differ, apart from the project and cookiecutter's own files."""
    changed = {path for path in {*before, *after} if before.get(path, "") != after.get(path, "")}
    own = {path for path in changed if re.fullmatch(REPLAY + r"(/\w+\.json)?", path)}
    own |= {p for p in changed if re.fullmatch(r"tmp/tmp\w+\.py", p) and HOOK.match(after[p])}
    return sorted(p for p in changed - own if not f"{p}/".startswith(f"{project}/"))


def in_process(home, template, answers, capfd):
    """Bake in this process, because no argument of a command can hold a NUL."""
    config = home.home / "config.yaml"
    config.write_text(f"replay_dir: {home.home.parent / REPLAY}\n")
    ended = Ended()
    capfd.readouterr()
    with mock.patch.object(tempfile, "tempdir", str(home.tmp)), contextlib.chdir(home.work):
        bake = functools.partial(cookiecutter, str(template), config_file=str(config))
        try:
            ended.project = Path(bake(no_input=True, extra_context=answers))
        except FailedHookException:
            told = capfd.readouterr().err
            ended.reasons = reasons_of(told)
            assert all(len(line) <= 76 for line in told.splitlines()), told
        except KeyError as error:
            ended.reasons = error.args
        except (TemplateError, UndefinedVariableInTemplate, TypeError) as error:
            ended.crash = repr(error)
    ended.output, ended.error = capfd.readouterr()
    config.unlink()
    return ended


def by_command(home, template, answers, capfd):
    """Bake with the real command, with the answers as its arguments."""
    done = home.cookiecutter(template, answers=answers)
    ended = Ended(output=done.stdout, error=done.stderr)
    last = (done.stderr.splitlines() or [""])[-1]
    if done.returncode == 0:
        (ended.project,) = (path for path in home.work.iterdir() if path.is_dir())
    elif last.startswith("KeyError: "):
        ended.reasons = (ast.literal_eval(last.removeprefix("KeyError: ")),)
    elif last.startswith("jinja2.exceptions."):
        ended.crash = last
    else:
        ended.reasons = reasons_of(done.stderr)
    return ended


def spoil(template, folder, hook, code):
    """Copy the template to the folder, with code at the end of a hook that overrides its own."""
    shutil.copytree(template, folder)
    path = folder / "hooks" / f"{hook}_project.py"
    head, main, tail = path.read_text("utf-8").rpartition('\nif __name__ == "__main__":\n')
    assert main
    path.write_text(f"{head}\n{code}\n{main}{tail}", "utf-8")
    return folder
