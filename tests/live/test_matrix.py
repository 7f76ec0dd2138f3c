"""Every provider x strictness x target, judged by the service's own Django and supervisor."""

import hashlib
import os
import re
import shutil
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness.answers import ONE_AT_A_TIME, PRODUCT, ROWS, effective, refused, row_id, varied
from harness.asking import report_of
from harness.commands import BEAT, GUNICORN, WORKER
from harness.service import OUTSIDE_NAME, Project, commands_of
from harness.tallies import proven

ACCEPTED = {row_id(answers): answers for answers in PRODUCT if not refused(answers)}
DEFAULTS = PRODUCT[0]
CHOICES = {row_id(DEFAULTS | answers): DEFAULTS | answers for answers in ONE_AT_A_TIME}
COMBINATIONS = [
    pytest.param(CHOICES, id="each choice once"),
    pytest.param(ACCEPTED, id="every combination", marks=pytest.mark.all),
]

# 256 bits in base64, as Render makes them for `generateValue: true`.
GENERATED = "qgNwTIUTRQY6l3kZc0yVvDDnV0mGOWkE2TzJ7bBx5nQ="
TYPED = "a long text that is only used here, 0123456789 abcdefghijklmnop"


@pytest.fixture(scope="module")
def place(deployment):
    """A built service. All others share its environment, because they have the same locks."""
    return deployment("self_hosted")


def production(project, answers, ca):
    """Return the web process's environment: what its files ask for, and what the platform sets."""
    row, target = ROWS[answers["redis_provider"]], answers["deploy_target"]
    given = {
        "DATABASE_URL": "postgres://user:password@db.example.com/db?sslrootcert=system",
        row["url_env"]: row["url_form"].replace(":PORT", ":6380"),
        "EMAIL_URL": "smtp+tls://user:password@mail.example.com:587",
        "DEFAULT_FROM_EMAIL": f"service@{OUTSIDE_NAME}",
        "SECRET_KEY": TYPED,
        "ALLOWED_HOSTS": OUTSIDE_NAME,
    }
    if row["ca"] in ("own", "provider_file"):
        given["REDIS_CA_CERTS"] = str(ca)
    settings = commands_of(project, target, given).first_environment()
    if target.startswith("render"):
        settings["RENDER_EXTERNAL_HOSTNAME"] = OUTSIDE_NAME
        if "SECRET_KEY" in settings:
            settings["SECRET_KEY"] = GENERATED
    return settings


def check(project, settings):
    """Return the ids that `check --deploy` reports, or its output if that says more."""
    # Bakes must not be changed.
    settings = settings | {"PYTHONDONTWRITEBYTECODE": "1"}
    done = project.manage("check", "--deploy", "--fail-level", "WARNING", env=settings)
    found = set(re.findall(r"^\S+ \((\w+\.[A-Z]\d+)\) ", done.stderr, re.MULTILINE))
    if bool(found) != bool(done.returncode) or (done.stderr and not found):
        return f"exit status {done.returncode}: {done.stdout}{done.stderr}"
    # A bake is not built, so its static files are not collected.
    return found - {"operations.W013"}


def expected(answers):
    """Return what must be reported: an unverified certificate, and nothing else."""
    encrypted = ROWS[answers["redis_provider"]]["tls"] != "none"
    return {"operations.W001"} if encrypted and effective(answers) == "none" else set()


@pytest.mark.parametrize("combinations", COMBINATIONS)
def test_check_deploy_reports_exactly_what_is_not_verified(
    combinations, baked, place, certificates
):
    runs = defaultdict(list)  # {(the Python files, the environment): the combinations that have it}
    locks = set()
    for name, answers in combinations.items():
        made = baked(**answers)
        locks.add(made.files["requirements.txt"])
        python = sorted((path, data) for path, data in made.files.items() if path.endswith(".py"))
        project = Project(made.path, venv=place.project.venv)
        settings = production(project, answers, certificates.own.pem)
        files = hashlib.sha256(repr(python).encode()).hexdigest()
        runs[files, tuple(sorted(settings.items()))].append((name, project))
    assert locks == {(place.project.path / "requirements.txt").read_bytes()}
    # There are 110 for 296 rows: recommended is another mode, and two targets share an environment.
    environments = {
        (row["redis_provider"], effective(row), row["deploy_target"].startswith("render"))
        for row in combinations.values()
    }
    assert len(runs) == len(environments)

    def found(run):
        (_, settings), names = run
        _, project = names[0]
        return check(project, dict(settings))

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = zip(runs.values(), pool.map(found, runs.items()), strict=True)
        reported = {name: ids for names, ids in results for name, _ in names}
    assert reported == {name: expected(answers) for name, answers in combinations.items()}
    proven(services_judged_by_check_deploy=len(runs))


# {what is wrong: (answers, file, old, new, what is reported)}
SETTINGS = "config/settings.py"
MEMORYSTORE = {"redis_provider": "memorystore_redis", "deploy_target": "render"}
REPORTED = {
    "nothing": ({}, SETTINGS, "DEBUG = env", "DEBUG = env", set()),
    "DEBUG": (
        {},
        SETTINGS,
        '"DEBUG", "false"',
        '"DEBUG", "true"',
        {f"security.W0{number}" for number in ("04", "08", "12", "16", "18")},
    ),
    "a shorter key than Render's": (
        {},
        SETTINGS,
        "if not SECRET_KEY:",
        "SECRET_KEY = SECRET_KEY[:43]\nif not SECRET_KEY:",
        {"operations.W011"},
    ),
    "no HTTPS": (
        {},
        SETTINGS,
        "SECURE_SSL_REDIRECT = not DEBUG\nSESSION_COOKIE_SECURE = not DEBUG\n",
        "",
        {"security.W008", "security.W012"},
    ),
    "no HSTS": ({}, SETTINGS, '"SECURE_HSTS_SECONDS", "3600"', '"", "0"', {"security.W004"}),
    "not verified": (
        {"redis_provider": "upstash"},
        SETTINGS,
        '"REDIS_CERT_REQS": "required"',
        '"REDIS_CERT_REQS": "none"',
        {"operations.W001"},
    ),
    "no e-mail in render.yaml": ({}, "render.yaml", "EMAIL_URL", "EMAIL", {"operations.W003"}),
    "too few connections": (
        {},
        SETTINGS,
        '"REDIS_MAX_CONNECTIONS": "50"',
        '"REDIS_MAX_CONNECTIONS": "5"',
        {"operations.W004"},
    ),
    "no CA in render.yaml": (
        MEMORYSTORE,
        "render.yaml",
        "REDIS_CA_CERTS",
        "REDIS_CA",
        "exit status 2: REDIS_CERT_REQS=required without the host name check needs REDIS_CA_CERTS",
    ),
    "another provider's variable": (
        {"redis_provider": "upstash"},
        SETTINGS,
        'PROVIDERS_URL_NAME = "REDIS_URL"',
        'PROVIDERS_URL_NAME = "SCALINGO_REDIS_URL"',
        "exit status 2: SCALINGO_REDIS_URL is not set",
    ),
    "another provider's host": (
        {"redis_provider": "fly", "deploy_target": "server"},
        SETTINGS,
        "fly-*.upstash.io",
        "",
        "exit status 2: REDIS_URL is plain redis:// to ",
    ),
}


@pytest.mark.parametrize("what", varied(REPORTED, 4))
def test_check_deploy_reports(what, baked, place, certificates, tmp_path):
    answers, name, old, new, reported = REPORTED[what]
    answers = {"redis_provider": "render", "deploy_target": "render"} | answers
    path = shutil.copytree(baked(**answers).path, tmp_path / "my_service")
    change(path / name, old, new)
    project = Project(path, venv=place.project.venv)
    found = check(project, production(project, answers, certificates.own.pem))
    if isinstance(reported, str):
        found = found[: len(reported)]
    assert found == reported


def change(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


# What supervisor makes of supervisord.conf

COMMON = {
    "autostart": True,
    "autorestart": "RestartUnconditionally",
    "startsecs": 10,
    "startretries": 3,
    "stopsignal": "SIGTERM",
    "stopasgroup": False,
    "killasgroup": False,
    "redirect_stderr": True,
    "stdout_logfile": "/dev/stdout",
    "stdout_logfile_maxbytes": 0,
    "environment": {},
}
WORKERS = {"priority": 10, "startretries": 8, "stopsignal": "SIGQUIT", "stopwaitsecs": 18}
PROGRAMS = {
    "celery_worker:celery_worker": COMMON | WORKERS | {"command": WORKER},
    "django:django": COMMON | {"priority": 20, "stopwaitsecs": 7, "command": GUNICORN},
    "celery_beat:celery_beat": COMMON | {"priority": 30, "stopwaitsecs": 2, "command": BEAT},
}


def supervised(folder):
    """Return what supervisor should read in the supervisord.conf of this folder."""
    return {
        "programs": PROGRAMS,
        "nodaemon": True,
        "logfile": "/dev/null",
        "pidfile": f"{folder}/supervisord.pid",
        "serverurl": f"unix://{folder}/supervisor.sock",
        "said": [],
    }


def test_supervisor_reads_the_three_programs(baked, place):
    """The file is the same for all answers, by tests/bake/test_render.py."""
    folder = baked().path
    path = str(folder / "supervisord.conf")
    assert report_of(place, "programs.py", path) == {path: supervised(folder)}


# {what is wrong: (old, new, what supervisor says, or the option that it reads differently)}
MISREAD = {
    "no such signal": ("stopsignal=QUIT", "stopsignal=QUITE", "'QUITE' is not a valid signal name"),
    "no number": ("stopwaitsecs=18", "stopwaitsecs=soon", "invalid literal for int()"),
    "no such variable": ("%(here)s/supervisor.sock", "%(ENV_NO)s", "contains names ('ENV_NO')"),
    "no name for copies": ("priority=20", "numprocs=2", "%(process_num) must be present"),
    "no command": ("command=gunicorn", ";command=gunicorn", "does not specify a command"),
    "no such factory": ("rpcinterface:make_main", "rpcinterface:make_no", "cannot be resolved"),
    "no such folder": ("logfile=/dev/null", "logfile=/no/such/log", "/no/such/log does not exist"),
    # supervisor says nothing about an option that it does not know.
    "a misspelt option": ("stopwaitsecs=18", "stopwaitsec=18", {"stopwaitsecs": 10}),
    "a signal less": ("stopsignal=QUIT", "", {"stopsignal": "SIGTERM"}),
    "another order": ("priority=10", "priority=40", {"priority": 40}),
    "a whole group is killed": ("priority=10", "priority=10\nkillasgroup=true", {"killasgroup": 1}),
}


@pytest.mark.parametrize("what", MISREAD)
def test_supervisor_reads_otherwise_where_there_is(what, baked, place, tmp_path):
    old, new, wrong = MISREAD[what]
    conf = shutil.copy(baked().path / "supervisord.conf", tmp_path)
    change(tmp_path / "supervisord.conf", old, new)
    (found,) = report_of(place, "programs.py", conf).values()
    if isinstance(wrong, str):
        assert wrong in found["refused"]
    else:
        name = "celery_worker:celery_worker"
        right = supervised(tmp_path)
        programs = PROGRAMS | {name: PROGRAMS[name] | wrong}
        assert found == right | {"programs": programs} != right
