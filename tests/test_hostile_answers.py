"""Answers that nobody should give: each is refused with better ones, or baked as it was given."""

import ast
import configparser
import contextlib
import functools
import json
import keyword
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest
import tomllib
import yaml
from cookiecutter.exceptions import FailedHookException, UndefinedVariableInTemplate
from cookiecutter.main import cookiecutter
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from jinja2 import TemplateError

from tests.answers import QUESTIONS, check_keys
from tests.support.cli import SECONDS, Home, tree

HEAD = "Nothing was generated, because:"
NOTE = "(What follows is cookiecutter's own traceback; the reasons are above.)"
PLAIN = {"project_name": "My Service", "project_slug": "my_service"}
TAG = re.compile("{[{%#]")

# What a refusal says to do. A group holds the value to give instead.
EXAMPLE = re.compile(r"(project_name|project_slug) .*: answer for example '([^']+)'\.")
FOLDER = re.compile(r"(project_slug) .* cannot be the name of a folder: answer with a-z, 0-9 and _.*")
RUN = re.compile(r"(project_\w+) was given as .*, which cookiecutter has run as a .* plain text\.")
PAIR = re.compile(r"(cert_strictness) .* cannot work out of the box .*: answer (recommended); .*")

# Cookiecutter's own: the last answers, and each hook as it was rendered.
REPLAY = "home/.cookiecutter_replay"
HOOK = re.compile(rb'"""(Refuse answers that cannot work|Prove that what was written is whole)')


@dataclass
class Ended:
    """How a bake ended: with a project, with the reasons of a refusal, or by cookiecutter's error."""

    project: Path | None = None
    reasons: tuple = ()
    crash: str = ""
    output: str = ""
    error: str = ""


def reasons_of(error):
    """The sentences of a refusal. AssertionError unless stderr begins with them, one to a line."""
    told, note, _ = error.partition(NOTE)
    head, *lines = told.splitlines() or [""]
    assert (head, note) == (HEAD, NOTE), f"no refusal: {error}"
    assert lines, "refused without a reason"
    for line in lines:
        assert re.fullmatch(r"  - \w.*\.", line, re.ASCII), f"no sentence: {line!r}"
        assert line.isascii() and line.isprintable() and len(line) < 600, f"unreadable: {line!r}"
    return tuple(line.removeprefix("  - ") for line in lines)


def leftovers(before, after, project=None):
    """The paths at which two trees differ, but for the project and for what is cookiecutter's."""
    changed = {path for path in {*before, *after} if before.get(path, "") != after.get(path, "")}
    own = {path for path in changed if path.split("/template.json")[0] == REPLAY}
    own |= {p for p in changed if re.fullmatch(r"tmp/tmp\w+\.py", p) and HOOK.match(after[p])}
    return sorted(p for p in changed - own if not f"{p}/".startswith(f"{project}/"))


def instead(reasons, answers):
    """The answers with those that the reasons ask for. AssertionError if one asks for none."""
    better = {}
    for reason in reasons:
        matches = (form.fullmatch(reason) for form in (EXAMPLE, FOLDER, RUN, PAIR))
        found = next(filter(None, matches), None)
        assert found, f"it does not say what to answer: {reason}"
        key, value = found[1], found[2] if found.re.groups == 2 else PLAIN[found[1]]
        assert key not in better, f"two sentences about {key}: {reasons}"
        better[key] = value
    return {**answers, **better}


# What the files say


def literals(project, name):
    """{variable or function: text} of the assignments of, and calls with, a text at their end."""
    found = {}
    for node in ast.walk(ast.parse((project / name).read_text("utf-8"))):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            found[ast.unparse(node.targets[0])] = node.value.value
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[-1], ast.Constant):
            found[ast.unparse(node.func)] = node.args[-1].value
    return found


def started(project):
    """The commands in supervisord.conf, Procfile and render.yaml, and the names in the last."""
    parser = configparser.RawConfigParser(inline_comment_prefixes=(";", "#"))
    parser.read_string((project / "supervisord.conf").read_text("utf-8"))
    commands = [parser[name].get("command", "") for name in parser.sections()]
    if (project / "Procfile").exists():
        commands += (project / "Procfile").read_text("utf-8").splitlines()
    names = []
    if (project / "render.yaml").exists():
        blueprint = yaml.safe_load((project / "render.yaml").read_text("utf-8"))
        commands += [service.get("startCommand", "") for service in blueprint["services"]]
        names = [part["name"] for parts in blueprint.values() for part in parts]
    return commands, names


def stated(project, slug):
    """{place: text} of all that the parsed files say about the project's name and package."""
    commands, names = started(project)
    packages = re.findall(r"(?:celery -A|gunicorn|python -m) ([^ .]+)", "\n".join(commands))
    module = literals(project, f"{slug}/settings.py")
    entrances = ("manage.py", f"{slug}/celery.py", f"{slug}/wsgi.py")
    return {
        "heading": (project / "README.md").read_text("utf-8").partition("\n")[0],
        "project": tomllib.loads((project / "pyproject.toml").read_text("utf-8"))["project"]["name"],
        "app": literals(project, f"{slug}/celery.py")["Celery"],
        "modules": [module["ROOT_URLCONF"], module["WSGI_APPLICATION"]],
        "settings": [literals(project, name)["os.environ.setdefault"] for name in entrances],
        "commands": set(packages),
        "render.yaml": set(names),
    }


def check_project(ended, answers, post_gen):
    """Raise AssertionError unless the project is whole and holds the answers as they were given."""
    assert ended.error == ""
    replay = ended.project.parent.parent / REPLAY / "template.json"
    context = json.loads(replay.read_text())["cookiecutter"]
    effective = {key: context[key] for key in QUESTIONS}
    assert answers.items() <= effective.items(), f"other answers are effective: {effective}"
    name, slug = effective["project_name"], effective["project_slug"]
    # Said once more, without the hook's lists.
    assert slug.isascii() and slug.isidentifier() and slug.islower(), slug
    assert not keyword.iskeyword(slug) and slug not in sys.stdlib_module_names, slug
    dashed = slug.replace("_", "-")
    parts = ("", "-redis", "-db", "-shared") if effective["deploy_target"] == "render" else ()
    assert stated(ended.project, ended.project.name) == {
        "heading": f"# {name}",
        "project": dashed,
        "app": slug,
        "modules": [f"{slug}.urls", f"{slug}.wsgi.application"],
        "settings": [f"{slug}.settings"] * 3,
        "commands": {slug},
        "render.yaml": {f"{dashed}{part}" for part in parts},
    }
    assert post_gen.problems(ended.project, context) == []
    assert not (ended.project / "INCOMPLETE.txt").exists()
    summary = f'Answers: project_name="{name}"'
    summary += "".join(f" {key}={effective[key]}" for key in QUESTIONS[1:])
    # It is wrapped.
    assert "".join(ended.output.split()).startswith("".join(summary.split())), ended.output


# The ways


def in_process(home, template, answers, capfd):
    """Bake in this process: no argument of a command can hold a NUL."""
    config = home.home / "config.yaml"
    config.write_text(f"replay_dir: {home.home.parent / REPLAY}\n")
    ended = Ended()
    capfd.readouterr()
    with mock.patch.object(tempfile, "tempdir", str(home.tmp)), contextlib.chdir(home.work):
        bake = functools.partial(cookiecutter, str(template), config_file=str(config))
        try:
            ended.project = Path(bake(no_input=True, extra_context=answers))
        except FailedHookException:
            ended.reasons = reasons_of(capfd.readouterr().err)
        except KeyError as error:
            ended.reasons = error.args
        except (TemplateError, UndefinedVariableInTemplate) as error:
            ended.crash = repr(error)
    ended.output, ended.error = capfd.readouterr()
    config.unlink()
    return ended


def by_command(home, template, answers, capfd):
    """Bake by the real command, with the answers as its arguments."""
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


@pytest.fixture
def home(tmp_path):
    """An account whose user has a file."""
    home = Home(tmp_path / "user")
    (home.work / "notes.txt").write_text("mine\n")
    return home


@pytest.fixture(scope="module")
def accepted():
    """Answers that were baked before: the same better ones come back often."""
    return set()


@pytest.fixture
def judge(home, template, post_gen, capfd, accepted):
    """judge(answers) -> Ended. AssertionError for what is neither refused nor baked as it should.

    A refusal is tried again, with the answers it asks for. `way` is in_process or by_command.
    """
    whole = template

    def once(answers, template, way):
        before = tree(home.home.parent)
        ended = way(home, template, answers, capfd)
        after = tree(home.home.parent)
        project = ended.project and ended.project.relative_to(home.home.parent).as_posix()
        assert leftovers(before, after, project) == []
        if ended.project:
            check_project(ended, answers, post_gen)
            shutil.rmtree(ended.project)
            accepted.add((template, *sorted(answers.items())))
        elif ended.crash:
            assert any(map(TAG.search, answers.values())), ended.crash
        for path in home.tmp.iterdir():
            path.unlink()
        return ended

    def judge(answers, *, template=whole, way=in_process):
        check_keys(answers)
        ended = once(answers, template, way)
        if ended.reasons:
            better = instead(ended.reasons, answers)
            if (template, *sorted(better.items())) not in accepted:
                assert once(better, template, in_process).project, "refused again"
        return ended

    return judge


# From a list

NASTY = {
    "quote": "O'Brien",
    "double quote": 'say "hi"',
    "quotes of Python": "'''\"\"\"",
    "curly quotes": "\u201cO\u2019Brien\u201d",
    "guillemets": "\u00abx\u00bb",
    "backtick": "`id`",
    "backslash": "a\\b",
    "backslash last": "a\\",
    "escape": "a\\x41\\n\\u0041",
    "newline": "a\nb",
    "newline last": "shop\n",
    "carriage return": "a\r\nb",
    "tab": "a\tb",
    "form feed": "a\fb",
    "line separator": "a\u2028b",
    "next line": "a\x85b",
    "NUL": "a\0b",
    "NUL last": "shop\0",
    "terminal escape": "\x1b[2J\x1b[31mshop\x07",
    "end of RAW": "''' + __import__('os').system('touch ran') + r'''",
    "shell": "$(id)",
    "shell variable": "${HOME}",
    "shell, two commands": "a; touch ran #",
    "shell, pipe": "a && b | c > d",
    "format": "{project_name} %s %(x)s",
    "supervisor": "%(ENV_HOME)s",
    "toml": '"\n[tool.x]\ny = "',
    "ini": "a\n[program:x]\ncommand=touch ran",
    "yaml": "a: b",
    "yaml comment": "a # b",
    "yaml anchor": "&a *b !c",
    "markdown": "[x](javascript:alert(1))",
    "html": "<script>alert(1)</script>",
    "entity": "a &amp; b",
    "emoji": "\U0001f642",
    "family": "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "accents": "Caf\u00e9 Zo\u00eb",
    "combining": "Cafe\u0301",
    "sharp s": "Stra\u00dfe",
    "dotless i": "\u0131d",
    "ligature": "\ufb01le",
    "cyrillic": "\u0441\u0435\u0440\u0432\u0438\u0441",
    "homoglyph": "s\u0435rvice",
    "full width": "\uff53\uff45\uff52\uff56\uff49\uff43\uff45",
    "chinese": "\u670d\u52a1",
    "arabic": "\u062e\u062f\u0645\u0629",
    "arabic digits": "a\u0663",
    "superscript": "x\u00b2",
    "right-to-left override": "abc\u202efed",
    "zero width": "a\u200bb",
    "byte order mark": "\ufeffshop",
    "no-break space": "a\u00a0b",
    "soft hyphen": "a\u00adb",
    "private use": "\ue000",
    "a byte that is no text": "shop\udcff",
    "empty": "",
    "a space": " ",
    "spaces": "   ",
    "space first": " shop",
    "space last": "shop ",
    "two spaces": "a  b",
    "dash first": "-rf",
    "option": "--help",
    "equals sign": "a=b",
    "only dashes": "---",
    "only underscores": "___",
    "underscore first": "_shop",
    "underscores inside": "a__b",
    "only digits": "2024",
    "digit first": "9lives",
    "number": "1e3",
    "version": "1.0",
    "null": "null",
    "true": "true",
    "no": "no",
    "40": "a" * 40,
    "41": "a" * 41,
    "60": "a" * 60,
    "61": "a" * 61,
    "300": "a" * 300,
    "300 of four bytes": "\U0001f642" * 300,
    "100 kB": "a" * 100_000,
    "words of 300": "shop " * 60,
    "up": "../x",
    "up and up": "../../../x",
    "up from below": "x/../../y",
    "below": "a/b",
    "below, with space": "a b/c d",
    "slash last": "shop/",
    "dots": "..",
    "dot": ".",
    "three dots": "...",
    "dot first": ".shop",
    "dot last": "shop.",
    "dotted": "my.shop",
    "absolute": "{root}/x",
    "absolute, two slashes": "/{root}/x",
    "home": "~",
    "file in the home": "~/x",
    "drive": "C:\\x",
    "drive, relative": "C:x",
    "share": "\\\\server\\share",
    "stream": "shop::$DATA",
    "upper case": "SHOP",
    "camel case": "MyShop",
    "dashes": "my-shop",
    "keyword": "class",
    "keyword in upper case": "CLASS",
    "keyword None": "None",
    "soft keyword": "match",
    "soft keyword _": "_",
    "builtin": "print",
    "dunder": "__init__",
    "standard library": "json",
    "standard library, private": "_thread",
    "test": "test",
    "dependency": "celery",
    "dependency, other case": "Django",
    "own app": "authentication",
    "own folder": "templates",
    "own module": "manage",
    "own file": "README.md",
    "marker": "INCOMPLETE.txt",
    "git": ".git",
    "device": "con",
    "device in upper case": "NUL",
    "device with a number": "com1",
    "device with an ending": "aux.txt",
    "cookiecutter": "cookiecutter.project_slug",
    "question": "project_name",
    "tags": "{{ 7*7 }}",
    "tags of another answer": "{{ cookiecutter._redis_providers }}",
    "tags of plain text": "{{ 'shop' }}",
    "raw": "{% raw %}{{ x }}{% endraw %}",
    "raw without an end": "{% raw %}",
    "set": "{% set cookiecutter = 7 %}shop",
    "comment": "{# x #}shop",
    "comment without an end": "{# x",
    "open tag": "{{ oops",
    "closed tag": "oops }}",
    "tag of nothing": "{{ }}",
    "unknown variable": "{{ nothing.here }}",
    "unknown tag": "{% include '/etc/passwd' %}",
}
# In two of these the value never comes to a template, or the template is broken.
COMMANDS = ["quotes of Python", "newline", "a byte that is no text", "right-to-left override"]
COMMANDS += ["a space", "option", "equals sign", "up from below", "absolute", "share", "100 kB"]
COMMANDS += ["keyword", "device in upper case", "tags", "raw", "comment without an end", "40"]


def value_of(name, home):
    return NASTY[name].replace("{root}", str(home.home.parent))


@pytest.mark.parametrize("nasty", NASTY)
def test_as_a_name_it_is_refused_or_baked_as_it_is(judge, home, nasty):
    judge({"project_name": value_of(nasty, home)})


@pytest.mark.parametrize("nasty", NASTY)
def test_as_a_package_it_is_refused_or_baked_as_it_is(judge, home, nasty):
    judge({"project_slug": value_of(nasty, home), "deploy_target": "procfile"})


@pytest.mark.parametrize("nasty", COMMANDS)
def test_on_the_command_line_it_is_the_same(judge, home, nasty):
    both = {"project_name": value_of(nasty, home), "project_slug": value_of(nasty, home)}
    answers = {**both, "redis_provider": "heroku", "cert_strictness": "required"}
    judge(answers, way=by_command)
