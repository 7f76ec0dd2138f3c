"""What is baked: every provider x strictness x target, read back from the parsed files."""

import ast
import configparser
import json
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path, PurePosixPath

import pytest
import tomllib
import yaml
from cookiecutter.exceptions import FailedHookException

from harness import deployment_rules
from harness.answers import (
    CONTEXT,
    ONE_AT_A_TIME,
    PRODUCT,
    PROVIDERS,
    ROWS,
    SERVICE,
    TARGETS,
    each,
    effective,
    refused,
    resolved,
    row_id,
    varied,
)
from harness.commands import ALONE, BEAT, BUILD, GUNICORN, MIGRATE, SUPERVISE, WORKER
from harness.tallies import proven

ACCEPTED = [answers for answers in PRODUCT if not refused(answers)]
REFUSED = [answers for answers in PRODUCT if refused(answers)]
LOCKS = ("requirements.txt", "requirements-dev.txt")
COPIED = (".github/", "templates/")  # not rendered

MODULES = {
    "authentication": [
        "__init__",
        "admin",
        "claims",
        "delivery",
        "email_utils",
        "forms",
        "links",
        "mail_errors",
        "mail_server",
        "models",
        "outcomes",
        "smtp",
        "summary",
        "sweeper",
        "urls",
        "views",
    ],
    "authentication/migrations": [
        "0001_initial",
        "__init__",
    ],
    "config": [
        "__init__",
        "celery",
        "database_url",
        "email_url",
        "environment",
        "hosts",
        "results",
        "settings",
        "url_parts",
        "urls",
        "wsgi",
    ],
    "operations": [
        "__init__",
        "admin",
        "apps",
        "checks",
        "consumer",
        "health",
        "log_filters",
        "models",
        "probes",
        "put_aside",
        "readiness",
        "redaction",
        "standard_output",
        "supervise",
        "tasks",
        "watchdog",
        "worker_probes",
    ],
    "operations/development": [
        "__init__",
        "local_redis",
        "programs",
        "sources",
    ],
    "operations/management": [
        "__init__",
    ],
    "operations/management/commands": [
        "__init__",
        "dev",
        "doctor",
    ],
    "operations/migrations": [
        "0001_initial",
        "__init__",
    ],
    "redis_connection": [
        "__init__",
        "aio",
        "connection",
        "context",
        "credentials",
        "diagnosis",
        "errors",
        "handshake",
        "hints",
        "internals",
        "pem",
        "policy",
        "timeouts",
        "transport",
        "url",
        "x509",
    ],
    "tests": [
        "__init__",
        "answering",
        "deployment_files",
        "test_connection",
        "test_deployment",
        "test_development",
        "test_diagnosis",
        "test_environment",
        "test_hosts",
        "test_mail",
        "test_operations",
        "test_policy",
        "test_registration",
        "test_supervise",
        "test_transport",
        "test_variables",
        "test_worker",
    ],
}
FILES = {f"{folder}/{name}.py" for folder, names in MODULES.items() for name in names} | {
    ".env.example",
    ".github/dependabot.yml",
    ".github/workflows/ci.yml",
    ".gitignore",
    ".python-version",
    "Procfile.dev",
    "README.md",
    "gunicorn.conf.py",
    "docs/redis.md",
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

# What the README's section "Deploy" says of each target, and of no other.
DEPLOY = {
    "render": "one container with web, worker and beat under supervisor",
    "render_services": "the services for web, worker and beat",
    "procfile": "`Procfile` has `web`, `worker`, `beat` and `release`",
    "server": "Build, migrate, start:",
}
# The variables of a process in render.yaml. One more holds the Redis URL.
CLIENT = {"REDIS_CLIENT_CERT", "REDIS_CLIENT_KEY"}
VARIABLES = {"DATABASE_URL", "REDIS_CA_CERTS", "EMAIL_URL", "DEFAULT_FROM_EMAIL"} | CLIENT
VARIABLES |= {"ALLOWED_HOSTS"}


def facts_of(row):
    """Return a provider's facts in the form in which they stand in a project."""
    return {
        "label": row["label"],
        "url_env": row["url_env"],
        "url_form": row["url_form"],
        "REDIS_CHECK_HOSTNAME": "true" if row["check_hostname"] else "false",
        "REDIS_ALLOW_PLAINTEXT": row["plaintext_hosts"],
        "REDIS_DATABASES": str(row["databases"]),
        "REDIS_MAX_CONNECTIONS": str(row["max_connections"] or 0),
        "CELERY_POLLING_INTERVAL": "10" if row["billed_per_command"] else "1",
        "CELERY_REMOTE_CONTROL": "false" if row["billed_per_command"] else "true",
        "in_render_yaml": row["in_render_yaml"],
        "needs_ca": row["ca"] in ("own", "provider_file"),
        "may_need_a_client_certificate": row["ca"] == "own",
    }


SETTINGS = [name for name in facts_of(ROWS[PROVIDERS[0]]) if name.isupper()]


def texts(baked):
    return {name: data.decode("utf-8") for name, data in baked.files.items()}


def edited(files, name, old, new):
    """Return the files with a text in one of them replaced everywhere; None means all of it."""
    assert old is None or old in files[name]
    text = new if old is None else files[name].replace(old, new)
    rest = {other: text for other, text in files.items() if other != name}
    return rest if text is None else rest | {name: text}


def programs(files):
    parser = configparser.RawConfigParser(inline_comment_prefixes=(";", "#"))
    parser.read_string(files["supervisord.conf"])
    return {name: dict(parser[name]) for name in parser.sections()}


def procfile(files):
    lines = files["Procfile"].splitlines() if "Procfile" in files else []
    return dict(line.split(": ", 1) for line in lines)


def processes(files):
    """Return the services of render.yaml that run a command."""
    services = yaml.safe_load(files.get("render.yaml", "services: []"))["services"]
    return [service for service in services if service["type"] != "keyvalue"]


def keys(process):
    return {entry["key"] for entry in process["envVars"] if "key" in entry}


def one(pattern, text):
    """Return what the pattern finds. Raises ValueError unless it finds it once."""
    found = re.findall(pattern, text, re.MULTILINE)
    if len(found) != 1:
        raise ValueError(f"{pattern} is found {len(found)} times")
    return found[0]


def answers_of(files):
    """Return the five answers, read from {name: text} alone. Raises ValueError where files differ.

    cert_strictness is the effective mode: "recommended" renders the bytes of another answer.
    """
    said = defaultdict(set)
    for what, value, where in statements(files):
        said[what].add((value, where))
    for what, values in said.items():
        if len({value for value, _ in values}) > 1:
            raise ValueError(f"{what} is {' or '.join(f'{v} in {w}' for v, w in sorted(values))}")
    found = {what: next(iter(values))[0] for what, values in said.items()}
    facts = {what: found.pop(what) for what in facts_of(ROWS[PROVIDERS[0]]) if what in found}
    rows = [key for key, row in ROWS.items() if facts.items() <= facts_of(row).items()]
    if len(rows) != 1:
        raise ValueError(f"the facts {facts} are those of {rows}")
    return found | {"redis_provider": rows[0]}


def statements(files):
    """Yield (what, value, file) of all that the files say about the answers."""
    yield from readme_statements(files["README.md"])
    yield "project_slug", one(r"ACL SETUSER (\w+) reset", files["docs/redis.md"]), "docs/redis.md"
    yield from example_statements(files[".env.example"])
    yield from python_statements(files)
    if "render.yaml" in files:
        yield from blueprint_statements(files)
    if "Procfile" in files:
        yield "deploy_target", "procfile", "Procfile"
    if "render.yaml" not in files and "Procfile" not in files:
        yield "deploy_target", "server", "the list of files"
    name = tomllib.loads(files["pyproject.toml"])["project"]["name"]
    yield "project_slug", name.replace("-", "_"), "pyproject.toml"
    started = {
        "supervisord.conf": [p["command"] for p in programs(files).values() if "command" in p],
        "render.yaml": [process["startCommand"] for process in processes(files)],
        "Procfile": [line for name, line in procfile(files).items() if name != "release"],
    }
    for where, commands in started.items():
        for command in commands:
            package = one(r"(?:celery -A|gunicorn|python -m) (\w+)", command)
            assert package == ("operations" if "supervise" in command else "config"), where


def readme_statements(text):
    url_env, url_form = one(r"^`(\w+)=(\S+)`$", text)
    for what, value in {
        "project_name": one(r"\A# (.+)$", text),
        "label": one(r"^## Redis\n\n### (.+)$", text),
        "url_env": url_env,
        "url_form": url_form,
        "deploy_target": " and ".join(name for name, words in DEPLOY.items() if words in text),
    }.items():
        yield what, value, "README.md"


def example_statements(text):
    label, url_form = one(r"^# (.+): (\w+://\S+)$", text)
    values = dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))
    for what, value in {
        "label": label,
        "url_form": url_form,
        "url_env": one(r"^(\w+)=\n# CELERY_BROKER_URL wins over \1\.$", text),
        "cert_strictness": values["REDIS_CERT_REQS"],
        **{name: values[name] for name in SETTINGS},
    }.items():
        yield what, value, ".env.example"


def python_statements(files):
    settings = "config/settings.py"
    tree = ast.parse(files[settings])
    constants = {
        ast.unparse(node.targets[0]): node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
    }
    yield "project_slug", constants["SERVICE_NAME"], settings
    yield "url_env", constants["PROVIDERS_URL_NAME"], settings
    calls = {ast.unparse(n.func): n for n in ast.walk(tree) if isinstance(n, ast.Call)}
    values = {word.arg: word.value for word in calls["Environment"].keywords}
    defaults = ast.literal_eval(values["defaults"])
    yield "cert_strictness", defaults["REDIS_CERT_REQS"], settings
    yield from ((name, defaults[name], settings) for name in SETTINGS)


def blueprint_statements(files):
    blueprint, started = yaml.safe_load(files["render.yaml"]), processes(files)
    for part in ("services", "databases", "envVarGroups"):
        for thing in blueprint[part]:
            base = re.sub("-(worker|beat|redis|db|shared)$", "", thing["name"])
            yield "project_slug", base.replace("-", "_"), "render.yaml"
    target = {1: "render", 3: "render_services"}[len(started)]
    yield "deploy_target", target, "render.yaml"
    yield "in_render_yaml", len(blueprint["services"]) > len(started), "render.yaml"
    for process in started:
        yield "needs_ca", "REDIS_CA_CERTS" in keys(process), "render.yaml"
        yield "may_need_a_client_certificate", keys(process) >= CLIENT, "render.yaml"
        yield from (("url_env", key, "render.yaml") for key in keys(process) - VARIABLES)


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
    assert deployment_rules.problems(texts(made)) == []
    proven(combinations_judged=1)


@pytest.mark.parametrize("answers", REFUSED, ids=row_id)
def test_refused_answers_are_refused_by_the_real_bake(bake, tmp_path, answers):
    with pytest.raises(FailedHookException):
        bake(output=tmp_path, **answers)
    assert list(tmp_path.iterdir()) == []


def test_the_facts_rule_something_out_and_most_things_in():
    assert 0 < len(REFUSED) < len(ACCEPTED) / 10
    assert len(PRODUCT) == len(ROWS) * 4 * 4


def test_none_is_recommended_only_where_nothing_else_works():
    answers = [a for a in ACCEPTED if effective(a) == "none" != a["cert_strictness"]]
    assert {a["redis_provider"] for a in answers} == {"heroku"}


# Every answer, read back from the files


@pytest.mark.parametrize("answers", ACCEPTED, ids=row_id)
def test_the_files_alone_give_the_answers(baked, answers):
    names = {"project_name": "My Service", "project_slug": "my_service"}
    right = names | answers | {"cert_strictness": effective(answers)}
    assert answers_of(texts(baked(**answers))) == right


@pytest.mark.parametrize("answers", ACCEPTED, ids=row_id)
def test_the_readme_says_what_is_not_verified(baked, answers):
    text, row = texts(baked(**answers))["README.md"], ROWS[answers["redis_provider"]]
    mode, plain = effective(answers), row["tls"] == "none"
    assert ("**This connection is plain text.**" in text) == plain
    assert (f"its certificate is checked as `{mode}`" in text) == plain
    weak, can = mode == "none" and not plain, row["cert_reqs"] == "required"
    assert ("**The certificate is not verified** (`REDIS_CERT_REQS=none`)" in text) == weak
    # It also says what to do about that, and gives the provider's reason.
    assert ("supports better: set `REDIS_CERT_REQS=required`." in text) == (weak and can)
    assert ("To pin it, run `python manage.py doctor --certificate`" in text) == (weak and not can)
    assert " ".join(row["notes"].split()) in " ".join(text.split())


def test_the_readme_says_how_to_look_at_tls_where_there_is_tls(baked):
    for answers in ONE_AT_A_TIME:
        made = baked(**answers)
        row, readme = ROWS[made.answers["redis_provider"]], made.text("README.md")
        for command in ("openssl s_client", "redis-cli"):
            lines = [line for line in readme.splitlines() if f"`{command} " in line]
            assert len(lines) == (row["tls"] != "none"), command
            own = ["ca.pem" in line for line in lines]
            assert own == [row["ca"] != "system"] * len(lines), lines
            assert command == "redis-cli" or all(
                ("-verify_hostname" in line) == row["check_hostname"] for line in lines
            )


# {what is wrong: (file, old, new, the error's text)}; None stands for a whole file
MISREAD = {
    "another mode": (
        "config/settings.py",
        '"REDIS_CERT_REQS": "required"',
        '"REDIS_CERT_REQS": "none"',
        "cert_strictness is none in config/settings.py or required in .env.example",
    ),
    "another provider's number": (
        "config/settings.py",
        '"REDIS_DATABASES": "1"',
        '"REDIS_DATABASES": "16"',
        "REDIS_DATABASES is 1 in .env.example or 16 in config/settings.py",
    ),
    "another provider's variable": (
        "config/settings.py",
        'PROVIDERS_URL_NAME = "REDIS_URL"',
        'PROVIDERS_URL_NAME = "SCALINGO_REDIS_URL"',
        "url_env is REDIS_URL in .env.example or",
    ),
    "another provider's name": ("README.md", "Upstash", "Aiven", "label is Aiven in README.md or"),
    "another provider's URL": (".env.example", "@NAME", "@HOST", "url_form is rediss://default:"),
    "another provider's CA": (
        "render.yaml",
        "key: EMAIL_URL",
        "key: REDIS_CA_CERTS",
        "needs_ca is False in render.yaml or True in render.yaml",
    ),
    "another provider's Redis": (
        "render.yaml",
        "services:\n",
        "services:\n  - {type: keyvalue, name: my-service-redis}\n",
        "'needs_ca': False, 'may_need_a_client_certificate': False} are those of []",
    ),
    "no heading": ("README.md", "# My Service\n", "", r"\A# (.+)$ is found 0 times"),
    "another heading": (
        "README.md",
        "## Redis\n\n### ",
        "## Redis\n\n### x\n\n## Redis\n\n### ",
        "found 2 times",
    ),
    "another name in the settings": (
        "config/settings.py",
        'SERVICE_NAME = "my_service"',
        'SERVICE_NAME = "shop"',
        "or shop in config/settings.py",
    ),
    "another package in its name": (
        "pyproject.toml",
        '"my-service"',
        '"shop"',
        "or shop in pyproject.toml",
    ),
    "another package in a name": ("render.yaml", "my-service-db", "shop-db", "shop in render.yaml"),
    "another target's file": (
        "Procfile",
        None,
        "beat: celery -A config beat\n",
        "deploy_target is procfile in Procfile or render_services in README.md",
    ),
    "no file of the target": (
        "render.yaml",
        None,
        None,
        "deploy_target is render_services in README.md or server in the list of files",
    ),
    "another target's words": (
        "README.md",
        DEPLOY["render_services"],
        DEPLOY["render"],
        "deploy_target is render in README.md or render_services in render.yaml",
    ),
}


@pytest.mark.parametrize(("name", "old", "new", "text"), MISREAD.values(), ids=MISREAD)
def test_the_answers_are_not_read_where_files_differ(baked, name, old, new, text):
    files = texts(baked(redis_provider="upstash", deploy_target="render_services"))
    with pytest.raises(ValueError, match=re.escape(text)):
        answers_of(edited(files, name, old, new))


# Every file and folder


def strays(path, target):
    """Return what is missing in the folder of a bake, and what should not be there."""
    files = FILES | TARGET_FILES[target]
    folders = {str(folder) for name in files for folder in PurePosixPath(name).parents} - {"."}
    return {p.relative_to(path).as_posix() for p in path.rglob("*")} ^ (files | folders)


@pytest.mark.parametrize("answers", ACCEPTED, ids=row_id)
def test_the_files_are_exactly_those_of_the_target(baked, answers):
    assert strays(baked(**answers).path, answers["deploy_target"]) == set()


@pytest.mark.parametrize(
    ("remove", "make", "found"),
    [
        ("manage.py", None, {"manage.py"}),
        ("render.yaml", "Procfile", {"render.yaml", "Procfile"}),
        (None, "authentication/views.py.orig", {"authentication/views.py.orig"}),
        (None, "INCOMPLETE.txt", {"INCOMPLETE.txt"}),
        (None, "empty/", {"empty"}),
    ],
)
def test_a_missing_and_a_surplus_file_are_seen(baked, tmp_path, remove, make, found):
    path = shutil.copytree(baked(deploy_target="render").path, tmp_path / "my_service")
    assert strays(path, "render") == set()
    if remove:
        (path / remove).unlink()
    if make:
        (path / make).mkdir() if make.endswith("/") else (path / make).touch()
    assert strays(path, "render") == found


# The processes, and render.yaml


@pytest.mark.parametrize("answers", ACCEPTED, ids=row_id)
def test_supervisord_runs_the_three_programs_of_the_package(baked, answers):
    """No answer changes the file. tests/live/test_matrix.py shows how supervisor reads it."""
    files = texts(baked(**answers))
    assert files["supervisord.conf"] == (SERVICE / "supervisord.conf").read_text("utf-8")
    sections = programs(files).items()
    assert {name: section["command"] for name, section in sections if "command" in section} == {
        "program:django": GUNICORN,
        "program:celery_worker": WORKER,
        "program:celery_beat": BEAT,
    }


PROCFILE = [answers for answers in ACCEPTED if answers["deploy_target"] == "procfile"]


@pytest.mark.parametrize("answers", PROCFILE, ids=row_id)
def test_the_procfile_runs_the_same_commands(baked, answers):
    assert procfile(texts(baked(**answers))) == {
        "release": MIGRATE,
        "web": GUNICORN,
        "worker": ALONE + WORKER,
        "beat": BEAT,
    }


def broken_rules(text, answers):
    """Return which rules a render.yaml breaks: those of Render, and those that a queue needs.

    They are written independently of harness/deployment_rules.py, which has most of them, too.
    """
    row, blueprint = ROWS[answers["redis_provider"]], yaml.safe_load(text)
    services, databases = blueprint["services"], blueprint["databases"]
    stores = [service for service in services if service["type"] == "keyvalue"]
    started = [service for service in services if service["type"] != "keyvalue"]
    variables = [[e for e in service["envVars"] if "key" in e] for service in started]
    names = [thing["name"] for thing in (*services, *databases)]

    def of_each(key):
        return [service.get(key) for service in started]

    asked, connection = {"sync": False}, {"property": "connectionString"}
    redis = {"fromService": {"type": "keyvalue", "name": "my-service-redis"} | connection}
    needed = {
        "DATABASE_URL": {"fromDatabase": {"name": "my-service-db"} | connection},
        row["url_env"]: redis if row["in_render_yaml"] else asked,
    }
    if row["ca"] in ("own", "provider_file"):
        needed["REDIS_CA_CERTS"] = asked
    if row["ca"] == "own":
        needed |= dict.fromkeys(CLIENT, asked)
    mailing = needed | {"EMAIL_URL": asked, "DEFAULT_FROM_EMAIL": asked}
    right = [("web", SUPERVISE, mailing)]
    if answers["deploy_target"] == "render_services":
        right = [("web", GUNICORN, mailing), ("worker", ALONE + WORKER, mailing)]
        right += [("worker", BEAT, needed)]
        # Only the web gets a host name from Render, and only the web needs one.
        no_host = {"ALLOWED_HOSTS": {"value": "localhost"}}
        right = [right[0], *((kind, line, given | no_host) for kind, line, given in right[1:])]
    kinds, commands, sources = zip(*right, strict=True)
    rest = [None] * (len(right) - 1)
    shared = [{"key": "SECRET_KEY", "generateValue": True}]
    shared += [{"key": "WEB_CONCURRENCY", "value": "1"}]
    rules = {  # (what there is, what would be right)
        "the processes are those of the target": (
            list(zip(of_each("type"), of_each("startCommand"), strict=True)),
            list(zip(kinds, commands, strict=True)),
        ),
        "every process has its variables, from where they come": (
            [{e["key"]: {k: e[k] for k in e if k != "key"} for e in each} for each in variables],
            list(sources),
        ),
        "all share what one group holds": (
            [[e["fromGroup"] for e in service["envVars"] if len(e) == 1] for service in started],
            [["my-service-shared"]] * len(right),
        ),
        "the group has one SECRET_KEY, which Render makes": (
            blueprint["envVarGroups"],
            [{"name": "my-service-shared", "envVars": shared}],
        ),
        "all are built alike": (
            list(zip(of_each("runtime"), of_each("buildCommand"), strict=True)),
            [("python", BUILD)] * len(right),
        ),
        "web alone migrates, before it starts": (of_each("preDeployCommand"), [MIGRATE, *rest]),
        "web alone is asked for its health": (of_each("healthCheckPath"), ["/healthz", *rest]),
        "there is time to stop": (set(of_each("maxShutdownDelaySeconds")), {60}),
        "no service is on a free plan": ({s.get("plan") for s in services}, {"starter"}),
        "the database is not on a free plan": (
            [(database["name"], database.get("plan")) for database in databases],
            [("my-service-db", "basic-256mb")],
        ),
        "Redis is made where that was answered": (
            [store["name"] for store in stores],
            ["my-service-redis"] * row["in_render_yaml"],
        ),
        "Redis drops no task": (
            [store.get("maxmemoryPolicy") for store in stores],
            ["noeviction"] * len(stores),
        ),
        "the internet reaches no data": (
            [data.get("ipAllowList") for data in stores + databases],
            [[]] * len(stores + databases),
        ),
        "each name is given once": (len(set(names)), len(names)),
        "there is nothing else": (set(blueprint), {"services", "databases", "envVarGroups"}),
    }
    return [rule for rule, (found, wanted) in rules.items() if found != wanted]


RENDER = [answers for answers in ACCEPTED if answers["deploy_target"].startswith("render")]


@pytest.mark.parametrize("answers", RENDER, ids=row_id)
def test_render_yaml_keeps_the_rules(baked, answers):
    assert broken_rules(texts(baked(**answers))["render.yaml"], answers) == []


# {rule: (old, new)}
UNRULY = {
    "the processes are those of the target": ("env REMAP_SIGTERM=SIGQUIT ", ""),
    "every process has its variables, from where they come": ("key: EMAIL_URL", "key: EMAIL"),
    "all share what one group holds": ("fromGroup: my-service-shared", "fromGroup: shared"),
    "the group has one SECRET_KEY, which Render makes": ("generateValue: true", "value: insecure"),
    "all are built alike": (" --require-hashes", ""),
    "web alone migrates, before it starts": ("preDeployCommand", "initialDeployHook"),
    "web alone is asked for its health": ("healthCheckPath: /healthz", "healthCheckPath: /readyz"),
    "there is time to stop": ("maxShutdownDelaySeconds: 60", "maxShutdownDelaySeconds: 20"),
    "no service is on a free plan": ("plan: starter", "plan: free"),
    "the database is not on a free plan": ("plan: basic-256mb", "plan: free"),
    "Redis is made where that was answered": ("name: my-service-redis\n", "name: redis\n"),
    "Redis drops no task": ("maxmemoryPolicy: noeviction", "maxmemoryPolicy: allkeys-lru"),
    "the internet reaches no data": ("ipAllowList: []", "ipAllowList: [{source: 0.0.0.0/0}]"),
    "each name is given once": ('name: "my-service-beat"', 'name: "my-service-worker"'),
    "there is nothing else": ("services:\n", "previews: {generation: automatic}\nservices:\n"),
}


@pytest.mark.parametrize("rule", UNRULY)
def test_a_render_yaml_that_breaks_a_rule_is_seen(baked, rule):
    answers = {"redis_provider": "render", "deploy_target": "render_services"}
    files = edited(texts(baked(**answers)), "render.yaml", *UNRULY[rule])
    assert broken_rules(files["render.yaml"], answers) == [rule]


@pytest.mark.parametrize("other", ["render", "upstash", "scalingo"])
def test_the_render_yaml_of_another_provider_is_seen(baked, other):
    answers = {"redis_provider": "redis_cloud", "deploy_target": "render"}
    text = texts(baked(**answers | {"redis_provider": other}))["render.yaml"]
    assert "every process has its variables, from where they come" in broken_rules(text, answers)


# Lint and format, as a project's own pyproject.toml asks for


def ruff(*arguments):
    command = [sys.executable, "-m", "ruff", *map(str, arguments), "--no-cache"]
    done = subprocess.run(command, capture_output=True, text=True)
    # Status 1 means that ruff found something, 2 that it could not look.
    assert done.returncode < 2, done.stderr
    return done.stdout


def ruff_findings(folders):
    """Return {folder: codes} of what one `ruff check` and one `ruff format --check` find in all."""
    folders = [folder.resolve() for folder in folders]
    judged = {Path(line) for line in ruff("check", "--show-files", *folders).splitlines()}
    python = {path for folder in folders for path in folder.rglob("*.py")}
    assert {path for path in python if path.parent.name != "migrations"} <= judged
    found = defaultdict(set)
    for command in (["check"], ["format", "--check"]):
        for finding in json.loads(ruff(*command, "--output-format", "json", *folders)):
            (folder,) = set(folders) & set(Path(finding["filename"]).parents)
            found[folder].add(finding["code"])
    return dict(found)


@pytest.mark.all
def test_ruff_finds_nothing_in_any_bake(baked):
    names = {baked(**answers).path.resolve(): row_id(answers) for answers in ACCEPTED}
    assert {names[folder]: codes for folder, codes in ruff_findings(names).items()} == {}


# {what is wrong in one of many bakes: (file, old, new, what ruff finds there)}
UNTIDY = {
    "an unused import": ("manage.py", "import os\n", "import json\nimport os\n", {"F401"}),
    "single quotes": ("manage.py", '"__main__"', "'__main__'", {"unformatted"}),
    "its own line length": (
        "pyproject.toml",
        "line-length = 100",
        "line-length = 60",
        {"E501", "I001", "unformatted"},
    ),
    "its own rules": ("pyproject.toml", '"W"]', '"W", "D100"]', {"D100"}),
    "a package of its own less": ("operations/__init__.py", None, None, {"I001"}),
    "nothing": ("manage.py", "import os", "import os", None),
}


def test_ruff_judges_each_bake_by_itself(baked, tmp_path):
    """Each has its own pyproject.toml, and the packages beside it decide how imports are sorted."""
    whole = baked(deploy_target="server").path
    folders = {}
    for what, (name, old, new, _) in UNTIDY.items():
        folders[what] = shutil.copytree(whole, tmp_path / what / "my_service")
        files = edited({name: (folders[what] / name).read_text()}, name, old, new)
        if name in files:
            (folders[what] / name).write_text(files[name])
        else:
            shutil.rmtree((folders[what] / name).parent)
    found = ruff_findings(folders.values())
    assert {what: found.get(folder.resolve()) for what, folder in folders.items()} == {
        what: codes for what, (*_, codes) in UNTIDY.items()
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


@pytest.mark.parametrize("answers", each(6, ONE_AT_A_TIME), ids=row_id)
def test_without_hooks_the_same_bytes_are_baked(bake, baked, answers):
    assert bake(accept_hooks=True, **answers).files == baked(**answers).files


@pytest.mark.parametrize("target", TARGETS)
def test_the_same_answers_give_the_same_bytes(bake, baked, target):
    again = bake(accept_hooks=False, deploy_target=target)
    assert again.path != baked(deploy_target=target).path
    assert again.files == baked(deploy_target=target).files


@pytest.mark.parametrize("slug", varied(["null", "a", "true", "on", "e1", "match", "b" * 40]))
@pytest.mark.parametrize("target", TARGETS)
def test_an_awkward_slug_is_rendered_right_everywhere(baked, post_gen, slug, target):
    made = baked(project_slug=slug, deploy_target=target)
    assert post_gen.problems(made.path, made.answers) == []
    files = texts(made)
    found = answers_of(files)
    assert (found["project_slug"], found["deploy_target"]) == (slug, target)
    assert not re.search("my[_-]service", "".join(files.values()))


@pytest.mark.parametrize("name", varied(["1.0", "Null", "Yes", "A.b-c_d", "x -", "Z" * 60], 2))
def test_an_awkward_project_name_is_rendered_right_everywhere(baked, post_gen, name):
    for target in TARGETS:
        made = baked(project_name=name, project_slug="shop", deploy_target=target)
        assert post_gen.problems(made.path, made.answers) == []
        files = texts(made)
        found = answers_of(files)
        assert (found["project_name"], found["deploy_target"]) == (name, target)
        assert "My Service" not in "".join(files.values())


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


def test_conditions_stand_in_file_names_and_never_in_folder_names():
    conditional = [path for path in SERVICE.rglob("*") if "{%" in path.name]
    assert len(conditional) == 2
    assert all(path.is_file() for path in conditional)


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


def test_derived_values_stand_below_what_they_are_made_of():
    keys = list(CONTEXT)
    for key in (key for key, value in CONTEXT.items() if "{{" in str(value)):
        used = re.findall(r"cookiecutter\.(\w+)", str(CONTEXT[key]))
        assert used, key
        assert all(keys.index(other) < keys.index(key) for other in used), key
    assert json.dumps(CONTEXT["_redis_providers"]).count("{{") == 0
