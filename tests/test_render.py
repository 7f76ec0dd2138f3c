"""What is baked: every provider x strictness x target, read back from the parsed files."""

import ast
import configparser
import json
import re
import shlex
import subprocess
import sys

import pytest
import tomllib
import yaml
from cookiecutter.exceptions import FailedHookException

from tests.answers import (
    CONTEXT,
    ONE_AT_A_TIME,
    PRODUCT,
    ROOT,
    ROWS,
    SERVICE,
    TARGETS,
    refused,
    resolved,
    row_id,
)

ACCEPTED = [answers for answers in PRODUCT if not refused(answers)]
REFUSED = [answers for answers in PRODUCT if refused(answers)]
LOCKS = ("requirements.txt", "requirements-dev.txt")
COPIED = (".github/", "templates/")  # not rendered

PACKAGE = [
    "__init__",
    "celery",
    "checks",
    "debug",
    "environment",
    "health",
    "pem_files",
    "redis_tls",
]
MODULES = {
    "my_service": [*PACKAGE, "redis_url", "settings", "supervise", "urls", "wsgi"],
    "authentication": ["__init__", "admin", "email_utils", "forms", "models", "urls", "views"],
    "authentication/migrations": ["__init__", "0001_initial"],
    "operations": ["__init__", "apps", "causes", "models", "probes", "tasks"],
    "operations/management": ["__init__"],
    "operations/management/commands": ["__init__", "dev", "doctor"],
    "operations/migrations": ["__init__", "0001_initial"],
    "tests": ["__init__", "test_deployment", "test_operations", "test_redis_tls"]
    + ["test_registration"],
}
FILES = {f"{folder}/{name}.py" for folder, names in MODULES.items() for name in names} | {
    ".env.example",
    ".github/dependabot.yml",
    ".github/workflows/ci.yml",
    ".gitignore",
    ".python-version",
    "README.md",
    "manage.py",
    "pyproject.toml",
    "requirements-dev.txt",
    "requirements.txt",
    "script/dev",
    "script/test",
    "script/venv",
    "supervisord.conf",
    "templates/authentication/verification_email.txt",
    "templates/base.html",
    "templates/form.html",
    "templates/home.html",
    "templates/registration/login.html",
}
TARGET_FILES = {
    "render": {"render.yaml"},
    "render_services": {"render.yaml"},
    "procfile": {"Procfile"},
    "server": set(),
}
GUNICORN = (
    "gunicorn {slug}.wsgi --preload --threads 4 --graceful-timeout 5 --no-control-socket "
    "--access-logfile -"
)
WORKER = "celery -A {slug} worker --without-gossip --without-mingle --without-heartbeat"
# Where no supervisord.conf names the signal, this turns TERM into a soft shutdown.
ALONE = "env REMAP_SIGTERM=SIGQUIT "
BEAT = "celery -A {slug} beat"
MIGRATE = "python manage.py migrate --noinput"
BUILD = (
    "pip install --require-hashes -r requirements.txt && python manage.py collectstatic --noinput"
)
SUPERVISE = "python -m {slug}.supervise -c supervisord.conf"


def row_of(baked):
    return ROWS[baked.answers["redis_provider"]]


def literals(baked):
    """{key: value} of every dictionary entry in settings.py whose two sides are literals."""
    tree = ast.parse(baked.text(f"{baked.answers['project_slug']}/settings.py"))
    return {
        key.value: value.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Dict)
        for key, value in zip(node.keys, node.values, strict=True)
        if isinstance(key, ast.Constant) and isinstance(value, ast.Constant)
    }


def programs(baked):
    parser = configparser.RawConfigParser(inline_comment_prefixes=(";", "#"))
    parser.read_string(baked.text("supervisord.conf"))
    return {name: dict(parser[name]) for name in parser.sections()}


def blueprint(baked):
    return yaml.safe_load(baked.text("render.yaml"))


def variables(service):
    return {entry["key"]: entry for entry in service["envVars"] if "key" in entry}


# The helper itself


@pytest.mark.parametrize("answers", [{"redis_provder": "upstash"}, {"_redis_providers": {}}])
def test_bake_rejects_a_key_that_is_no_question(bake, baked, answers):
    with pytest.raises(ValueError, match="not in cookiecutter.json: _?redis_prov"):
        bake(**answers)
    with pytest.raises(ValueError, match="not in cookiecutter.json"):
        baked(**answers)
    with pytest.raises(ValueError, match="not in cookiecutter.json: __cert_req"):
        bake(private={"__cert_req": "none"})


@pytest.mark.parametrize("key", ["redis_provider", "cert_strictness", "deploy_target"])
def test_an_unknown_choice_is_cookiecutters_own_error(bake, key):
    with pytest.raises(ValueError, match=f"elsewhere provided for choice variable {key}"):
        bake(**{key: "elsewhere"})


# Every provider x strictness x target


@pytest.mark.parametrize("answers", ACCEPTED, ids=row_id)
def test_accepted_answers_bake_into_a_whole_project(baked, pre_gen, post_gen, answers):
    made = baked(**answers)
    assert pre_gen.problems(made.answers) == []
    assert post_gen.problems(made.path, made.answers) == []


@pytest.mark.parametrize("answers", REFUSED, ids=row_id)
def test_refused_answers_are_refused_by_the_real_bake(bake, tmp_path, answers):
    with pytest.raises(FailedHookException):
        bake(output=tmp_path, **answers)
    assert list(tmp_path.iterdir()) == []


def test_the_facts_rule_something_out_and_most_things_in():
    assert 0 < len(REFUSED) < len(ACCEPTED) / 10
    assert len(PRODUCT) == len(ROWS) * 4 * 4


@pytest.mark.parametrize("answers", ACCEPTED, ids=row_id)
def test_settings_carry_what_was_answered(baked, answers):
    made, row = baked(**answers), ROWS[answers["redis_provider"]]
    strictness = answers["cert_strictness"]
    expected = {
        "REDIS_CERT_REQS": row["cert_reqs"] if strictness == "recommended" else strictness,
        "REDIS_CHECK_HOSTNAME": "true" if row["check_hostname"] else "false",
        "REDIS_ALLOW_PLAINTEXT": row["plaintext_hosts"],
        "REDIS_DATABASES": str(row["databases"]),
        "REDIS_MAX_CONNECTIONS": str(row["max_connections"] or 0),
        "CELERY_POLLING_INTERVAL": "10" if row["billed_per_command"] else "1",
        "CELERY_REMOTE_CONTROL": "false" if row["billed_per_command"] else "true",
    }
    found = literals(made)
    assert {key: found[key] for key in expected} == expected
    assert f'"CELERY_BROKER_URL", "{row["url_env"]}"' in made.text("my_service/settings.py")


@pytest.mark.parametrize("answers", ACCEPTED, ids=row_id)
def test_none_is_never_rendered_unless_asked_for_or_without_a_choice(baked, answers):
    asked = answers["cert_strictness"] == "none"
    without = answers["cert_strictness"] == "recommended" and answers["redis_provider"] == "heroku"
    assert (literals(baked(**answers))["REDIS_CERT_REQS"] == "none") == (asked or without)


@pytest.mark.parametrize("answers", ACCEPTED, ids=row_id)
def test_the_files_are_exactly_those_of_the_target(baked, answers):
    assert set(baked(**answers).files) == FILES | TARGET_FILES[answers["deploy_target"]]


@pytest.mark.parametrize("answers", ACCEPTED, ids=row_id)
def test_supervisord_runs_the_three_programs_of_the_package(baked, answers):
    found = programs(baked(**answers))
    commands = {name: section.get("command") for name, section in found.items()}
    commands = {name: command for name, command in commands.items() if command}
    assert commands == {
        "program:django": GUNICORN.format(slug="my_service"),
        "program:celery_worker": WORKER.format(slug="my_service"),
        "program:celery_beat": BEAT.format(slug="my_service"),
    }
    stops = {name: (found[name]["priority"], found[name]["stopwaitsecs"]) for name in commands}
    assert stops == {
        "program:celery_worker": ("10", "18"),
        "program:django": ("20", "7"),
        "program:celery_beat": ("30", "2"),
    }
    assert found["program:celery_worker"]["stopsignal"] == "QUIT"


RENDER = [answers for answers in ACCEPTED if answers["deploy_target"].startswith("render")]


@pytest.mark.parametrize("answers", RENDER, ids=row_id)
def test_render_yaml_runs_the_processes_of_the_target(baked, answers):
    services = blueprint(baked(**answers))["services"]
    processes = [service for service in services if service["type"] != "keyvalue"]
    found = [(service["type"], service["startCommand"]) for service in processes]
    commands = [("web", SUPERVISE)]
    if answers["deploy_target"] == "render_services":
        commands = [("web", GUNICORN), ("worker", ALONE + WORKER), ("worker", BEAT)]
    assert found == [(kind, command.format(slug="my_service")) for kind, command in commands]
    assert {service["buildCommand"] for service in processes} == {BUILD}
    assert [s.get("preDeployCommand") for s in processes] == [MIGRATE] + [None] * len(commands[1:])
    assert {service["maxShutdownDelaySeconds"] for service in processes} == {60}
    assert {service["plan"] for service in services} == {"starter"}


@pytest.mark.parametrize("answers", RENDER, ids=row_id)
def test_render_yaml_gives_every_process_the_redis_that_was_answered(baked, answers):
    made = baked(**answers)
    row, services = row_of(made), blueprint(made)["services"]
    keyvalues = [service["name"] for service in services if service["type"] == "keyvalue"]
    assert len(keyvalues) == row["in_render_yaml"]
    for service in (service for service in services if service["type"] != "keyvalue"):
        entry = variables(service)[row["url_env"]]
        if row["in_render_yaml"]:
            assert entry["fromService"] == {
                "type": "keyvalue",
                "name": keyvalues[0],
                "property": "connectionString",
            }
        else:
            assert entry["sync"] is False
        needs_ca = row["ca"] in ("own", "provider_file")
        assert ("REDIS_CA_CERTS" in variables(service)) == needs_ca


PROCFILE = [answers for answers in ACCEPTED if answers["deploy_target"] == "procfile"]


@pytest.mark.parametrize("answers", PROCFILE, ids=row_id)
def test_the_procfile_runs_the_same_commands(baked, answers):
    lines = baked(**answers).text("Procfile").splitlines()
    assert dict(line.split(": ", 1) for line in lines) == {
        "release": MIGRATE,
        "web": GUNICORN.format(slug="my_service"),
        "worker": ALONE + WORKER.format(slug="my_service"),
        "beat": BEAT.format(slug="my_service"),
    }


# One choice at a time


@pytest.mark.parametrize("answers", ONE_AT_A_TIME, ids=row_id)
def test_files_that_people_own_are_tidy(baked, answers):
    for name, data in baked(**answers).files.items():
        text = data.decode("utf-8")
        assert "\r" not in text, name
        assert "\n\n\n\n" not in text, name
        assert not re.search(r"[ \t]$", text, re.MULTILINE), name
        assert not text or (text.endswith("\n") and not text.endswith("\n\n")), name
        assert not text.startswith("\n"), name


@pytest.mark.parametrize("answers", ONE_AT_A_TIME, ids=row_id)
def test_the_project_is_small_enough_to_own(baked, answers):
    files = baked(**answers).files
    # Lines with something on them.
    lines = {n: sum(map(bool, d.split(b"\n"))) for n, d in files.items() if n not in LOCKS}
    tests = sum(n for name, n in lines.items() if name.startswith("tests/"))
    # Without the migrations, which Django wrote.
    written = {n: count for n, count in lines.items() if "/migrations/" not in n}
    python = sum(count for n, count in written.items() if n.endswith(".py")) - tests
    assert len(files) <= 60
    assert sum(lines.values()) <= 2500
    assert python <= 1550
    assert tests <= 500
    assert lines["README.md"] <= 250


@pytest.mark.parametrize("answers", ONE_AT_A_TIME, ids=row_id)
def test_yaml_toml_and_shell_parse(baked, answers):
    made = baked(**answers)
    for name in made.files:
        if name.endswith((".yml", ".yaml")):
            assert yaml.safe_load(made.text(name)), name
        if name.startswith("script/"):
            subprocess.run(["bash", "-n", made.path / name], check=True)
    project = tomllib.loads(made.text("pyproject.toml"))
    assert project["project"]["name"] == "my-service"
    assert project["tool"]["cruft"]["skip"] == [".env"]


@pytest.mark.parametrize("name", ["dev", "test"])
def test_the_scripts_are_executable(baked, name):
    assert (baked().path / "script" / name).stat().st_mode & 0o111


@pytest.mark.parametrize("answers", ONE_AT_A_TIME, ids=row_id)
def test_the_readme_speaks_of_the_provider_that_was_answered(baked, answers):
    made = baked(**answers)
    text = made.text("README.md")
    assert text.startswith("# My Service\n")
    assert row_of(made)["label"] in text
    assert row_of(made)["url_env"] in text


@pytest.mark.parametrize("answers", ONE_AT_A_TIME, ids=row_id)
def test_without_hooks_the_same_bytes_are_baked(bake, baked, answers):
    assert bake(accept_hooks=True, **answers).files == baked(**answers).files


@pytest.mark.parametrize("target", TARGETS)
def test_the_same_answers_give_the_same_bytes(bake, baked, target):
    again = bake(accept_hooks=False, deploy_target=target)
    assert again.path != baked(deploy_target=target).path
    assert again.files == baked(deploy_target=target).files


@pytest.mark.parametrize(
    "answers",
    [{"deploy_target": target, "redis_provider": p} for target in TARGETS for p in list(ROWS)[::6]],
    ids=row_id,
)
def test_ruff_finds_nothing_in_a_bake(baked, answers):
    path = baked(**answers).path
    for command in (["check"], ["format", "--check"]):
        ruff = [sys.executable, "-m", "ruff", *command, "--no-cache", "--quiet", "."]
        done = subprocess.run(ruff, cwd=path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("slug", ["a", "null", "true", "on", "e1", "match", "b" * 40])
@pytest.mark.parametrize("target", TARGETS)
def test_an_awkward_slug_is_rendered_right_everywhere(baked, post_gen, slug, target):
    made = baked(project_slug=slug, deploy_target=target)
    assert post_gen.problems(made.path, made.answers) == []
    assert f"{slug}/settings.py" in made.files
    assert tomllib.loads(made.text("pyproject.toml"))["project"]["name"] == slug
    worker = shlex.split(programs(made)["program:celery_worker"]["command"])
    assert worker[:4] == ["celery", "-A", slug, "worker"]


@pytest.mark.parametrize("name", ["1.0", "Null", "Yes", "A.b-c_d", "x -", "Z" * 60])
def test_an_awkward_project_name_is_rendered_right_everywhere(baked, post_gen, name):
    for target in TARGETS:
        made = baked(project_name=name, project_slug="shop", deploy_target=target)
        assert post_gen.problems(made.path, made.answers) == []
        assert made.text("README.md").startswith(f"# {name}\n")


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("My Service", "my_service"),
        ("2 Fast", "fast"),
        ("-", "service"),
        ("Z" * 60, "z" * 40),
        ("a." + "b " * 28, None),
        ("服务", None),
    ],
)
def test_the_derived_slug_is_well_formed_and_never_empty(pre_gen, name, slug):
    found = resolved(project_name=name)["project_slug"]
    assert slug is None or found == slug
    assert pre_gen.SLUG.fullmatch(found)


# The template itself


def test_every_python_file_parses_before_it_is_rendered():
    paths = list(SERVICE.rglob("*.py"))
    assert len(paths) > 30
    for path in (*paths, *ROOT.glob("hooks/*.py")):
        ast.parse(path.read_text("utf-8"), str(path))


def test_jinja_in_python_stands_inside_string_literals():
    for path in SERVICE.rglob("*.py"):
        text = path.read_text("utf-8")
        strings = [
            node.value
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        ]
        assert "{%" not in text, path
        assert text.count("{{") == sum(value.count("{{") for value in strings), path


def test_ruff_finds_nothing_in_the_template():
    for command in (["check"], ["format", "--check"]):
        ruff = [sys.executable, "-m", "ruff", *command, "--no-cache", "--quiet", "."]
        done = subprocess.run(ruff, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_conditions_stand_in_file_names_and_never_in_folder_names():
    conditional = [path for path in SERVICE.rglob("*") if "{%" in path.name]
    assert len(conditional) == 2
    assert all(path.is_file() for path in conditional)


def test_no_name_is_impossible_on_windows():
    for path in SERVICE.rglob("*"):
        assert not set(path.name) & set('"<>:|?*\\'), path


def test_providers_are_told_apart_by_their_facts_only():
    tags = re.compile(r"{{.*?}}|{%.*?%}", re.DOTALL)
    for path in (path for path in SERVICE.rglob("*") if path.is_file()):
        relative = path.relative_to(SERVICE).as_posix()
        if relative.startswith(COPIED) or relative in LOCKS:
            continue
        for tag in tags.findall(path.read_text("utf-8") + path.name):
            bare = tag.replace("cookiecutter._redis_providers[cookiecutter.redis_provider]", "")
            assert "redis_provider" not in bare, (path, tag)
            targets = bare.replace("cookiecutter.deploy_target", "")
            used = set(re.findall(r"'(\w+)'", targets)) & (set(ROWS) - {"render"})
            assert not used, (path, tag)


def test_private_values_stand_above_their_users():
    keys = list(CONTEXT)
    users = [k for k in keys if "cookiecutter._redis_providers" in json.dumps(CONTEXT[k])]
    assert keys.index("_redis_providers") < min(map(keys.index, users))
    assert json.dumps(CONTEXT["_redis_providers"]).count("{{") == 0
