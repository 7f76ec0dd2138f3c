"""hooks/post_gen_project.py: each check on a small project, as plain Python, and in real bakes."""

import os
import shutil
import textwrap

import pytest
from cookiecutter.exceptions import FailedHookException

from harness.answers import PRODUCT, SERVICE, TARGETS, refused, resolved, row_id

FILES = {
    ".gitignore": ".env\n.venv/\n*.sqlite3\n",
    "manage.py": "print('Hello')\n",
    "gunicorn.conf.py": "threads = 4\n",
    "pyproject.toml": '[project]\nname = "my-service"\n',
    "supervisord.conf": """\
        [supervisord]
        nodaemon=true ; stay
        [rpcinterface:supervisor]
        supervisor.rpcinterface_factory=x
        [program:celery_worker]
        command=celery -A config worker ; no shell
        stopwaitsecs=18 ; soft 12
        [program:django]
        command=gunicorn config.wsgi
        stopwaitsecs=7
        [program:celery_beat]
        command=celery -A config beat
        stopwaitsecs=2
        """,
    "config/settings.py": """\
        SERVICE_NAME = "my_service"
        PROVIDERS_URL_NAME = "REDIS_URL"
        DEFAULTS = {
            "REDIS_CERT_REQS": "required",
            "REDIS_CHECK_HOSTNAME": "true",
            "REDIS_DATABASES": "16",
            "REDIS_MAX_CONNECTIONS": "250",
            "REDIS_ALLOW_PLAINTEXT": "",
            "CELERY_POLLING_INTERVAL": "1",
            "CELERY_REMOTE_CONTROL": "true",
        }
        REDIS_MAX_CONNECTIONS = int(DEFAULTS["REDIS_MAX_CONNECTIONS"])
        """,
    "README.md": "Set SECRET_KEY= in rediss://:ACCESS_KEY@HOST, `-----BEGIN PRIVATE KEY-----`\n",
    "templates/home.html": "{{ user }} {% if user %}{% endif %}\n",
    "tests/test_url.py": "URL = 'rediss://:s3cret@h'  # made up\n",
    ".github/workflows/ci.yml": "run: ${{ matrix.python }}\n",
}
DERIVED = {  # The small project has these, whatever the facts of the default provider are.
    "redis_provider": "render",
    "__cert_reqs": "required",
    "__check_hostname": "true",
    "__databases": "16",
    "__max_connections": "250",
    "__plaintext_hosts": "",
    "__polling_interval": "1",
    "__remote_control": "true",
    "__url_env": "REDIS_URL",
}
SUPERVISE = "python -m operations.supervise -c supervisord.conf"
BLUEPRINT = f"""\
    services:
      - {{type: web, name: web, startCommand: {SUPERVISE}}}
      - {{type: keyvalue, name: redis}}
    """
THREE = """\
    services:
      - {type: web, name: web, startCommand: gunicorn config.wsgi}
      - {type: worker, startCommand: env REMAP_SIGTERM=SIGQUIT celery -A config worker}
      - {type: worker, startCommand: celery -A config beat}
      - {type: keyvalue, name: redis}
    """
PROCFILE = """\
release: python manage.py migrate --noinput
web: gunicorn config.wsgi
worker: env REMAP_SIGTERM=SIGQUIT celery -A config worker
beat: celery -A config beat
"""


def project(root, target="render"):
    """Write a small project that is complete for the target; return its answers."""
    answers = {**resolved(project_slug="my_service", deploy_target=target), **DERIVED}
    files = dict(FILES)
    if target in ("render", "render_services"):
        files["render.yaml"] = BLUEPRINT if target == "render" else THREE
    if target == "procfile":
        files["Procfile"] = PROCFILE
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    return answers


def edit(path, old, new):
    """Replace a text that must be there. `old` None creates the file, `new` None removes it."""
    if new is None:
        path.unlink()
    elif old is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(new)
    else:
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize("target", TARGETS)
def test_a_whole_project_has_no_problems(post_gen, tmp_path, target):
    answers = project(tmp_path, target)
    assert post_gen.problems(tmp_path, answers) == []


SETTINGS = "config/settings.py"
CONF = "supervisord.conf"
LOCK = "requirements.txt"
RED = {
    "manage.py is gone": ("manage.py", "", None, "manage.py is missing."),
    "gunicorn.conf.py is gone": ("gunicorn.conf.py", "", None, "gunicorn.conf.py is missing."),
    "settings are gone": (SETTINGS, "", None, "config/settings.py is missing."),
    "pyproject is gone": ("pyproject.toml", "", None, "pyproject.toml is missing."),
    "Python does not parse": (
        "tests/test_x.py",
        None,
        "def x(:\n",
        "tests/test_x.py cannot be parsed: ",
    ),
    "Python with a NUL": ("tests/x.py", None, "x = '\0'\n", "tests/x.py cannot be parsed: "),
    "settings weaken the check": (
        SETTINGS,
        '"REDIS_CERT_REQS": "required"',
        '"REDIS_CERT_REQS": "none"',
        "settings.py says REDIS_CERT_REQS = ['none'], but the answers mean 'required'.",
    ),
    "settings compute the check": (
        SETTINGS,
        '"REDIS_CERT_REQS": "required"',
        '"REDIS_CERT_REQS": str("required")',
        "settings.py says REDIS_CERT_REQS = [None], but",
    ),
    "settings leave the check out": (
        SETTINGS,
        '"REDIS_CERT_REQS": "required",',
        "",
        "settings.py says REDIS_CERT_REQS = [], but",
    ),
    "settings say the check twice": (
        SETTINGS,
        '"REDIS_CERT_REQS": "required"',
        '"REDIS_CERT_REQS": "required", "REDIS_CERT_REQS": "none"',
        "settings.py says REDIS_CERT_REQS = ['required', 'none'], but",
    ),
    "settings have another default": (
        SETTINGS,
        '"REDIS_DATABASES": "16"',
        '"REDIS_DATABASES": 16',
        "settings.py says REDIS_DATABASES = [16], but the answers mean '16'.",
    ),
    "settings have another provider's variable": (
        SETTINGS,
        'NAME = "REDIS_URL"',
        'NAME = "REDISCLOUD_URL"',
        "PROVIDERS_URL_NAME = ['REDISCLOUD_URL'], but the answers mean 'REDIS_URL'.",
    ),
    "settings assign what an answer is": (
        SETTINGS,
        'SERVICE_NAME = "my_service"',
        'SERVICE_NAME = "my_service"\nREDIS_CERT_REQS = "none"',
        "settings.py says REDIS_CERT_REQS = ['none', 'required'], but",
    ),
    "settings have another name": (
        SETTINGS,
        '"my_service"',
        '"shop"',
        "settings.py says SERVICE_NAME = ['shop'], but the answers mean 'my_service'.",
    ),
    "supervisord.conf does not parse": (CONF, "[supervisord]", "", "conf cannot be parsed: File"),
    "supervisord.conf says a thing twice": (
        CONF,
        "stopwaitsecs=7",
        "stopwaitsecs=7\nstopwaitsecs=8",
        "supervisord.conf cannot be parsed: While",
    ),
    "a program has another name": (
        CONF,
        "[program:django]",
        "[program:web]",
        "supervisord.conf runs {'program:celery_worker': 'celery -A config worker', 'program:web'",
    ),
    "a program is missing": (
        CONF,
        "[program:celery_beat]",
        "[supervisorctl]",
        "'program:django': 'gunicorn config.wsgi'}, not {'program:django': ",
    ),
    "programs are in a group": (
        CONF,
        "[supervisord]",
        "[group:all]\nprograms=django\n[supervisord]",
        "supervisord.conf runs {'group:all': None, ",
    ),
    "a program has an environment": (
        CONF,
        "stopwaitsecs=7",
        "stopwaitsecs=7\nenvironment=A=1",
        "supervisord.conf: [program:django] must not set environment.",
    ),
    "supervisord has an environment": (
        CONF,
        "nodaemon=true",
        "environment=A=1",
        "supervisord.conf: [supervisord] must not set environment.",
    ),
    "a program stops as a group": (
        CONF,
        "stopwaitsecs=7",
        "stopwaitsecs=7\nstopasgroup=true",
        "supervisord.conf: [program:django] must not set stopasgroup.",
    ),
    "a program runs in sh": (CONF, "=gunicorn", "=sh -c gunicorn", "'sh -c gunicorn config.wsgi'"),
    "a program runs in bash": (CONF, "=gunicorn", "=/bin/bash -ec gunicorn", "bash -ec gunicorn"),
    "a program joins commands": (CONF, "=gunicorn", "=true && gunicorn", "'true && gunicorn con"),
    "a program has no command": (CONF, "command=gunicorn config.wsgi\n", "", ": None, 'program"),
    "a Procfile for Render": (
        "Procfile",
        None,
        PROCFILE,
        "Procfile is there, but deploy_target is",
    ),
    "pyproject does not parse": (
        "pyproject.toml",
        "[project]",
        "[project",
        "pyproject.toml cannot be parsed",
    ),
    "a workflow does not parse": (
        ".github/workflows/ci.yml",
        "run: ",
        "run: [",
        ".github/workflows/ci.yml cannot be parsed: while parsing",
    ),
    "render.yaml does not parse": (
        "render.yaml",
        "services:",
        "services: [",
        "render.yaml cannot be parsed: while parsing",
    ),
    "render.yaml is empty": (
        "render.yaml",
        textwrap.dedent(BLUEPRINT),
        "",
        "render.yaml has no list of serv",
    ),
    "render.yaml has no services": ("render.yaml", "services:", "x:", "has no list of services"),
    "the services are not a list": (
        "render.yaml",
        "services:",
        "services: 7\nx:",
        "render.yaml has no list of services that have a type.",
    ),
    "a service is not a mapping": (
        "render.yaml",
        "services:",
        "services:\n  - web",
        "no list of s",
    ),
    "a service has no type": (
        "render.yaml",
        "type: web, ",
        "",
        "no list of services that have a t",
    ),
    "a service has another type": ("render.yaml", "type: web", "type: worker", "runs [('worker', "),
    "a service runs another program": (
        "render.yaml",
        SUPERVISE,
        "gunicorn config.wsgi",
        "render.yaml runs [('web', 'gunicorn config.wsgi'), ('keyvalue', None)], not [('web'",
    ),
    "there is no Redis": (
        "render.yaml",
        "  - {type: keyvalue, name: redis}\n",
        "",
        "supervisord.conf')], not [('web', ",
    ),
    "a service more": (
        "render.yaml",
        "services:",
        "services:\n  - {type: worker, startCommand: celery -A config beat}",
        "render.yaml runs [('worker', 'celery -A config beat'), ('web', ",
    ),
    "an answer not rendered": (
        "README.md",
        "Set",
        "cookiecutter.project_name",
        "README.md still says 'cookiecutter.'.",
    ),
    "an answer not rendered in a copied file": (
        "templates/home.html",
        "user",
        "cookiecutter.project_name",
        "templates/home.html still says 'cookiecutter.'.",
    ),
    "a variable tag": ("README.md", "Set", "{{ x }}", "README.md still holds template tags."),
    "a block tag": ("README.md", "Set", "{% x %}", "README.md still holds template tags."),
    "a private key": (
        "tests/key.pem",
        None,
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEowIBAAKCAQEAtest\n",
        "tests/key.pem holds a private key, which must not be in git.",
    ),
    "a private key in one line": (
        "script/key.py",
        None,
        r"KEY = '-----BEGIN PRIVATE KEY-----\nMIIEowIBAAKCAQEAtest'",
        "key.py holds a private key",
    ),
    "a secret key in an env file": (
        ".env.example",
        None,
        "DEBUG=true\nSECRET_KEY=change-me\n",
        ".env.example holds a SECRET_KEY, which must not be in git.",
    ),
    "a secret key behind a comment sign": (
        ".env.example",
        None,
        '# SECRET_KEY="change-me"\n',
        ".env.example holds a SECRET_KEY",
    ),
    "a secret key in Python": (
        "config/conf.py",
        None,
        'SECRET_KEY = "django-insecure-8b!x(2k#9v0q$w)e7r^t"\n',
        "conf.py holds a SECRET_KEY",
    ),
    "a Redis password": (
        ".env.example",
        None,
        "REDIS_URL=rediss://default:hunter2@redis.example:6379\n",
        ".env.example holds a password in a URL, which must not be in git.",
    ),
    "a password of capitals and digits": (
        "README.md",
        "Set",
        "redis://:PASSWORD1@redis.example",
        "README.md holds a password in a URL",
    ),
    "a mail password": (
        "README.md",
        "Set",
        "EMAIL_URL=smtp+tls://me:hunter2@mail.example:587",
        "README.md holds a password in a URL",
    ),
}


@pytest.mark.parametrize(("name", "old", "new", "text"), RED.values(), ids=RED)
def test_post_gen_turns_red_when(post_gen, tmp_path, name, old, new, text):
    answers = project(tmp_path)
    edit(tmp_path / name, old, new)
    found = post_gen.problems(tmp_path, answers)
    assert any(text in one for one in found), found


@pytest.mark.parametrize("target", ["render", "render_services"])
def test_a_render_target_needs_render_yaml(post_gen, tmp_path, target):
    answers = project(tmp_path, target)
    edit(tmp_path / "render.yaml", "", None)
    [text] = post_gen.problems(tmp_path, answers)
    assert text == f"render.yaml is missing, but deploy_target is {target}."


@pytest.mark.parametrize("target", ["procfile", "server"])
def test_no_other_target_may_have_render_yaml(post_gen, tmp_path, target):
    answers = project(tmp_path, target)
    edit(tmp_path / "render.yaml", None, textwrap.dedent(BLUEPRINT))
    [text] = post_gen.problems(tmp_path, answers)
    assert text == f"render.yaml is there, but deploy_target is {target}."


def test_a_provider_elsewhere_needs_no_redis_in_render_yaml(post_gen, tmp_path):
    answers = {**project(tmp_path), "redis_provider": "upstash"}
    [text] = post_gen.problems(tmp_path, answers)
    assert text.startswith("render.yaml runs [('web', ")
    assert "('keyvalue', None)], not [('web', " in text


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(None, id="gone"),
        pytest.param(PROCFILE.replace("beat: celery -A config beat\n", ""), id="no beat"),
        pytest.param(PROCFILE + "clock: date\n", id="one more"),
        pytest.param(PROCFILE + "web: gunicorn config.wsgi\n", id="web twice"),
        pytest.param(PROCFILE.replace("web: ", "web "), id="no colon"),
        pytest.param(PROCFILE.replace("gunicorn config.wsgi", ""), id="no command"),
        pytest.param(PROCFILE + "\n", id="empty line"),
    ],
)
def test_a_procfile_names_the_four_processes(post_gen, tmp_path, text):
    answers = project(tmp_path, "procfile")
    edit(tmp_path / "Procfile", None, text)
    [found] = post_gen.problems(tmp_path, answers)
    if text is None:
        assert found == "Procfile is missing, but deploy_target is procfile."
    else:
        assert found.startswith("Procfile has [")


def test_files_that_the_project_does_not_write_are_the_users_own(post_gen, tmp_path):
    answers = project(tmp_path)
    for name in (".env", ".venv/lib/x.py", ".git/config", "db.sqlite3", "notes/x.py"):
        edit(tmp_path / name, None, "SECRET_KEY=abc\n{{ x }} def x(:\n")
    assert post_gen.problems(tmp_path, answers) == []
    (tmp_path / "notes/x.py").rename(tmp_path / "script.py").replace(tmp_path / "manage.py")
    assert "a SECRET_KEY" in " ".join(post_gen.problems(tmp_path, answers))


CAME_ALONG = (
    "{} came along from the template's folder, where somebody has run the service:"
    " delete that there, and generate the project again."
)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("config/__pycache__/settings.cpython-311.pyc", "config/__pycache__"),
        ("authentication/migrations/__pycache__/x.pyc", "authentication/migrations/__pycache__"),
        ("redis_connection/url.pyc", "redis_connection/url.pyc"),
        ("operations/.ruff_cache/0.17/1", "operations/.ruff_cache"),
        ("tests/.mypy_cache/3.11/x.json", "tests/.mypy_cache"),
        ("config/.env", "config/.env"),
    ],
)
def test_what_running_the_template_left_in_a_folder_is_refused(post_gen, tmp_path, name, shown):
    """In one sentence, whatever it holds."""
    answers = project(tmp_path)
    edit(tmp_path / name, None, "SECRET_KEY=abc\n{{ cookiecutter.x }} def x(:\n")
    assert post_gen.problems(tmp_path, answers) == [CAME_ALONG.format(shown)]


@pytest.mark.parametrize("name", ["db.sqlite3", ".env", ".ruff_cache/x", "__pycache__/manage.pyc"])
def test_beside_the_folders_it_is_refused_if_it_came_with_the_bake(post_gen, tmp_path, name):
    """It is the user's own if it is older than the marker."""
    answers = project(tmp_path)
    for path in (name, post_gen.MARKER):
        edit(tmp_path / path, None, "x")
    top = name.partition("/")[0]
    os.utime(tmp_path / post_gen.MARKER, (2000, 2000))
    os.utime(tmp_path / top, (1000, 1000))
    assert post_gen.problems(tmp_path, answers) == []
    os.utime(tmp_path / top, (3000, 3000))
    assert post_gen.problems(tmp_path, answers) == [CAME_ALONG.format(top)]


def test_all_that_came_along_is_named_in_one_sentence(post_gen, tmp_path):
    answers = project(tmp_path)
    for name in ("config/__pycache__/a.pyc", "config/__pycache__/b.pyc", "tests/x.pyc"):
        edit(tmp_path / name, None, "x")
    [text] = post_gen.problems(tmp_path, answers)
    assert text == CAME_ALONG.format("config/__pycache__, tests/x.pyc")


def test_nothing_is_written_or_removed(post_gen, tmp_path):
    answers = project(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    post_gen.problems(tmp_path, answers)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_without_pyyaml_no_yaml_is_checked_and_that_is_said(post_gen, tmp_path, monkeypatch):
    answers = project(tmp_path)
    edit(tmp_path / "render.yaml", "services:", "services: [")
    assert list(post_gen.skipped()) == []
    for suffix in (".yaml", ".yml"):
        monkeypatch.delitem(post_gen.PARSERS, suffix)
    assert post_gen.problems(tmp_path, answers) == []
    assert list(post_gen.skipped()) == [
        "the syntax of .yaml and .yml files, because PyYAML is not installed"
    ]


def test_on_python_3_10_newer_syntax_is_not_checked_and_that_is_said(
    post_gen, tmp_path, monkeypatch
):
    answers = project(tmp_path)
    edit(tmp_path / "tests/test_x.py", None, "def x(:\n")
    edit(tmp_path / "pyproject.toml", "[project]", "[project")
    assert len(post_gen.problems(tmp_path, answers)) == 2
    for suffix in (".py", ".toml"):
        monkeypatch.delitem(post_gen.PARSERS, suffix)
    assert post_gen.problems(tmp_path, answers) == []
    assert list(post_gen.skipped()) == [
        "the syntax of .py and .toml files, which is that of Python 3.11"
    ]


# The summary


@pytest.mark.parametrize("answers", [a for a in PRODUCT if not refused(a)], ids=row_id)
def test_the_summary_is_true_to_the_facts(post_gen, answers):
    given = " ".join(f"{key}={value}" for key, value in answers.items())
    answers = resolved(project_slug="shop", **answers)
    row = answers["_redis_providers"][answers["redis_provider"]]
    summary = dict(post_gen.summary(answers))
    assert list(summary) == ["Answers", "Redis", "Certificate", "Next"]
    effective, redis, certificate, command = summary.values()
    assert effective == f'project_name="My Service" project_slug=shop {given}'
    assert redis.startswith(row["label"])
    assert ("plain redis:// without TLS" in redis) == (row["tls"] == "none")
    assert row["network"] in redis
    assert ("WARNING" in redis) == (answers["deploy_target"] not in row["reachable_from"])
    assert certificate.startswith(f"{answers['__cert_reqs']} (")
    assert ("anyone on the path" in certificate) == (answers["__cert_reqs"] == "none")
    assert command == "cd shop && ./script/dev"


@pytest.mark.parametrize(
    ("answers", "text"),
    [
        (
            {"redis_provider": "upstash"},
            "required (the chain and the host name, or no connection).",
        ),
        (
            {"redis_provider": "upstash", "cert_strictness": "optional"},
            "optional (the chain and the host name, or no connection).",
        ),
        (
            {"redis_provider": "heroku"},
            "none (encrypted, but anyone on the path can pose as your Redis)"
            " until you pin it: `manage.py doctor --certificate`.",
        ),
        (
            {"redis_provider": "self_hosted"},
            "required (the chain and the host name, or no connection);"
            " set REDIS_CA_CERTS to its CA's certificate.",
        ),
        (
            {"redis_provider": "memorystore_redis"},
            "required (the chain up to REDIS_CA_CERTS, or no connection);"
            " set REDIS_CA_CERTS to its CA's certificate.",
        ),
        (
            {"redis_provider": "render"},
            "required (the chain and the host name, or no connection),"
            " should the URL ever be rediss://.",
        ),
    ],
)
def test_the_summary_says_how_the_certificate_is_checked(post_gen, answers, text):
    assert dict(post_gen.summary(resolved(**answers)))["Certificate"] == text


def test_the_report_is_quiet_under_cruft(post_gen, capsys):
    assert post_gen.report([], resolved()) == 0
    assert capsys.readouterr().out == ""
    assert post_gen.report([], {**resolved(), "_output_dir": "/x"}) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if line[0] != " "] == [
        "Answers:",
        "Redis:",
        "Certificate:",
        "Next:",
    ]
    assert max(map(len, lines)) <= 76


def test_a_bad_report_lists_the_problems(post_gen, capsys):
    """It also says what to do about them, under cruft too."""
    assert post_gen.report(["One.", "Two."], resolved()) == 1
    assert capsys.readouterr() == (
        "",
        "The project is not complete, which is a fault of the template:\n  - One.\n  - Two.\n"
        'Answers: project_name="My Service" project_slug=my_service\n'
        "  redis_provider=render cert_strictness=recommended deploy_target=render\n"
        "Please report these lines to the template's maintainers.\n"
        "(What follows is cookiecutter's own traceback; the reasons are above.)\n",
    )


# Through real bakes


@pytest.mark.parametrize("target", TARGETS)
def test_a_bake_ends_with_the_summary(bake, capfd, target):
    baked = bake(project_slug="shop", redis_provider="upstash", deploy_target=target)
    out, error = capfd.readouterr()
    assert (baked.path / "manage.py").is_file()
    assert error == ""
    assert out.splitlines() == [
        'Answers: project_name="My Service" project_slug=shop redis_provider=upstash',
        f"  cert_strictness=recommended deploy_target={target}",
        f"Redis: {baked.answers['_redis_providers']['upstash']['label']}.",
        "Certificate: required (the chain and the host name, or no connection).",
        "Next: cd shop && ./script/dev",
    ]


def test_a_provider_out_of_reach_is_a_warning_not_a_refusal(bake, capfd):
    baked = bake(redis_provider="render", deploy_target="server")
    assert (baked.path / "manage.py").is_file()
    out = " ".join(capfd.readouterr().out.split())
    assert "WARNING: it cannot be reached from deploy_target server." in out


def test_a_broken_template_says_what_is_wrong_and_leaves_nothing(bake, template, tmp_path, capfd):
    broken = shutil.copytree(template, tmp_path / "broken")
    edit(broken / SERVICE.name / CONF, "stopwaitsecs=18", "environment=A=1\nstopasgroup=true")
    output = tmp_path / "output"
    with pytest.raises(FailedHookException):
        bake(output=output, broken=broken)
    error = capfd.readouterr().err
    assert error.startswith(
        "The project is not complete, which is a fault of the template:\n  - sup"
    )
    assert "[program:celery_worker] must not set stopasgroup." in error
    assert "[program:celery_worker] must not set environment." in error
    assert "\nAnswers: project_name=" in error
    assert "(What follows is cookiecutter's own traceback; the reasons are above.)\n" in error
    assert list(output.iterdir()) == []


def test_a_template_in_which_the_service_was_run_is_refused(bake, template, tmp_path, capfd):
    used = shutil.copytree(template, tmp_path / "used")
    left = (".env", "db.sqlite3", "config/__pycache__/x.pyc", ".mypy_cache/x.json")
    for name in left:
        edit(used / SERVICE.name / name, None, "x")
    output = tmp_path / "output"
    with pytest.raises(FailedHookException):
        bake(output=output, broken=used)
    error = " ".join(capfd.readouterr().err.split())
    assert CAME_ALONG.format(".env, .mypy_cache, config/__pycache__, db.sqlite3") in error
    assert list(output.iterdir()) == []
