"""What the parsed files of a project say about its name, and whether that is what was answered."""

import ast
import configparser
import json
import re

import tomllib
import yaml

from harness.answers import QUESTIONS
from harness.bakes import REPLAY


def literals(project, name):
    """Return {name: text} of assignments and calls in Python code that end with a text."""
    found = {}
    for node in ast.walk(ast.parse((project / name).read_text("utf-8"))):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            found[ast.unparse(node.targets[0])] = node.value.value
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[-1], ast.Constant):
            found[ast.unparse(node.func)] = node.args[-1].value
    return found


def settings_of(project, name):
    """Return the texts in Python code that name a module of settings."""
    tree = ast.parse((project / name).read_text("utf-8"))
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    return {text for text in texts if str(text).endswith(".settings")}


def started(project):
    """Return the commands in supervisord.conf, Procfile and render.yaml, and its names."""
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


def stated(project):
    """Return {place: text} of all that the parsed files say about the project's name."""
    commands, names = started(project)
    packages = re.findall(r"(?:celery -A|gunicorn|python -m) ([^ .]+)", "\n".join(commands))
    module = literals(project, "config/settings.py")
    entrances = ("manage.py", "config/celery.py", "config/wsgi.py")
    return {
        "heading": (project / "README.md").read_text("utf-8").partition("\n")[0],
        "project": tomllib.loads((project / "pyproject.toml").read_text("utf-8"))["project"][
            "name"
        ],
        "name": module["SERVICE_NAME"],
        "app": literals(project, "config/celery.py")["Celery"],
        "modules": [module["ROOT_URLCONF"], module["WSGI_APPLICATION"]],
        "settings": [settings_of(project, name) for name in entrances],
        "commands": set(packages),
        "render.yaml": set(names),
    }


def check_project(ended, answers, post_gen):
    """Raise AssertionError unless the project is complete and holds the answers as given."""
    assert ended.error == ""
    replay = ended.project.parent.parent / REPLAY / "template.json"
    context = json.loads(replay.read_text())["cookiecutter"]
    effective = {key: context[key] for key in QUESTIONS}
    assert answers.items() <= effective.items(), f"other answers are effective: {effective}"
    name, slug = effective["project_name"], effective["project_slug"]
    # The rules again, written without the hook's lists.
    assert slug.isascii() and slug.isidentifier() and slug.islower(), slug
    assert slug not in ("con", "prn", "aux", "nul", "com1", "lpt1"), slug
    dashed = slug.replace("_", "-")
    assert re.fullmatch("[a-z0-9]([a-z0-9-]*[a-z0-9])?", dashed), "PEP 508 has no such name"
    parts = ["", "-db", "-shared"] if effective["deploy_target"] == "render" else []
    parts += ["-redis"] * bool(parts and effective["redis_provider"] == "render")
    supervised = effective["deploy_target"] == "render"
    assert stated(ended.project) == {
        "heading": f"# {name}",
        "project": dashed,
        "name": slug,
        "app": slug,
        "modules": ["config.urls", "config.wsgi.application"],
        "settings": [{"config.settings"}] * 3,
        "commands": {"config", *(["operations"] if supervised else [])},
        "render.yaml": {f"{dashed}{part}" for part in parts},
    }
    assert post_gen.problems(ended.project, context) == []
    assert not (ended.project / "INCOMPLETE.txt").exists()
    summary = f'Answers: project_name="{name}"'
    summary += "".join(f" {key}={effective[key]}" for key in QUESTIONS[1:])
    # The line is wrapped between words, and so may a name of several words be.
    shown = " ".join(ended.output.split("\n  "))
    assert " ".join(shown.split()).startswith(" ".join(summary.split())), ended.output
