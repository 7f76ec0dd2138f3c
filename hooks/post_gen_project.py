"""Prove that what was written is complete, make its scripts executable, and remove the marker.

Cookiecutter renders this file and runs the copy in the new project. Jinja takes the file as it is
down to its last lines, where the answers are. It is plain Python, 3.10 or newer, so the tests can
import it unrendered. {% raw %}
"""

import sys

if __name__ == "__main__":
    # The copy lies in $TMPDIR. With that folder on the path, a yaml.py there would be imported.
    sys.path.pop(0)
    # `import signal` takes 5 ms, in which Ctrl-C would show a traceback; `_signal` takes none.
    import _signal

    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    # It ends before there is much garbage, and looking for it takes a tenth of the time.
    import gc

    gc.disable()

import ast
import configparser
import json
import os
import re
import textwrap
from collections.abc import Callable, Iterator

if sys.version_info >= (3, 11):
    import tomllib
try:
    import yaml
except ImportError:  # Cookiecutter brings PyYAML; without it, .yaml and .yml are not parsed.
    yaml = None

QUESTIONS = ("project_name", "project_slug", "redis_provider", "cert_strictness", "deploy_target")
# The names at the top of a generated project, as in pre_gen_project.py. The folder may hold others,
# which are their owner's and are not looked at.
WRITTEN = (
    ".env.example .github .gitignore .python-version Procfile Procfile.dev README.md "
    "authentication config docs gunicorn.conf.py manage.py operations pyproject.toml "
    "redis_connection render.yaml requirements-dev.txt requirements.txt script supervisord.conf "
    "templates tests"
)
SETTINGS = "config/settings.py"
MARKER = "INCOMPLETE.txt"

ALWAYS = ("manage.py", "gunicorn.conf.py", "pyproject.toml", "supervisord.conf", SETTINGS)
BY_TARGET = {"render.yaml": ("render", "render_services"), "Procfile": ("procfile",)}

# {name in the settings: the answer, or what follows from the answers}
RENDERED = {
    "REDIS_CERT_REQS": "__cert_reqs",
    "REDIS_CHECK_HOSTNAME": "__check_hostname",
    "REDIS_DATABASES": "__databases",
    "REDIS_MAX_CONNECTIONS": "__max_connections",
    "REDIS_ALLOW_PLAINTEXT": "__plaintext_hosts",
    "CELERY_POLLING_INTERVAL": "__polling_interval",
    "CELERY_REMOTE_CONTROL": "__remote_control",
    "PROVIDERS_URL_NAME": "__url_env",
    "SERVICE_NAME": "project_slug",
}

# The programs, and what runs them for each target.
WEB = "gunicorn config.wsgi"
WORKER = "celery -A config worker"
BEAT = "celery -A config beat"
SUPERVISED = {"program:django": WEB, "program:celery_worker": WORKER, "program:celery_beat": BEAT}
ALONE = f"env REMAP_SIGTERM=SIGQUIT {WORKER}"
PROCFILE = {
    "release": "python manage.py migrate --noinput",
    "web": WEB,
    "worker": ALONE,
    "beat": BEAT,
}
SERVICES = {
    "render": [("web", "python -m operations.supervise -c supervisord.conf")],
    "render_services": [("web", WEB), ("worker", ALONE), ("worker", BEAT)],
}

# What running a service leaves in its folder. Git ignores it, and cookiecutter copies it.
LEFTOVER = re.compile(
    r"__pycache__|.*\.pyc|\.(ruff|mypy|pytest)_cache|\.venv|\.env|db\.sqlite3.*|staticfiles"
    r"|supervisor\.sock|supervisord\.pid"
)
TAGS = re.compile("{[{%]")
SECRETS = {
    "a private key": re.compile(r"BEGIN [A-Z ]*PRIVATE KEY-----(\s|\\n)*[\w+/=]{16}"),
    "a SECRET_KEY": re.compile(
        r"""SECRET_KEY(=["']?\w[^\s,()]*$|["']?\s*[:=]\s*["'](?=[^"']*\d)[^"'\s{]{32})""",
        re.MULTILINE,
    ),
    "a password in a URL": re.compile(r"://[^\s:/@]*:(?![A-Z_]+@|[{$<])[^\s:/@]+@"),
}


def problems(root: str, answers: dict) -> list[str]:
    """Return what is wrong with the project in the folder `root`, one sentence each."""
    project = Project(root, answers)
    return [text for check in CHECKS for text in check(project)]


class Project:
    """What the project's files say, and the answers they should hold."""

    def __init__(self, root: str, answers: dict) -> None:
        self.root = root
        self.answers = answers
        self.target = answers["deploy_target"]
        self.row = answers["_redis_providers"][answers["redis_provider"]]
        # {path: text} of each file, and {path: what its parser made of it}
        self.files = read(root, WRITTEN.split())
        self.parsed, self.unparsable = parse(self.files)


# Reading


def read(root: str, names: list[str]) -> dict[str, str]:
    """Return {path: text} of these files of `root`, and of all files in folders of these names."""
    files = {}
    for name in names:
        for path in (name, *below(root, name)):
            place = os.path.join(root, path)
            if os.path.isfile(place) and not is_leftover(path):
                with open(place, encoding="utf-8", errors="replace") as file:
                    files[path] = file.read()
    return files


def below(root: str, name: str) -> Iterator[str]:
    """Yield the paths of all that is in this folder of `root`, but nothing inside a leftover."""
    for folder, folders, files in os.walk(os.path.join(root, name)):
        for entry in sorted([*folders, *files]):
            yield os.path.relpath(os.path.join(folder, entry), root).replace(os.sep, "/")
        folders[:] = [entry for entry in folders if not LEFTOVER.fullmatch(entry)]


def is_leftover(path: str) -> bool:
    return LEFTOVER.fullmatch(path.rpartition("/")[2]) is not None


def parse(files: dict[str, str]) -> tuple[dict, list[str]]:
    """Return {path: what its parser made of it}, and a sentence for each that has an error."""
    parsed, errors = {}, []
    for name, text in files.items():
        parser = PARSERS.get(os.path.splitext(name)[1])
        if parser is not None:
            try:
                parsed[name] = parser(text)
            except PARSER_ERRORS as error:
                errors.append(f"{name} cannot be parsed: {' '.join(str(error).split())}.")
    return parsed, errors


def parse_ini(text: str) -> dict:
    """Return {section: {option: text}}, as supervisor reads it."""
    parser = configparser.RawConfigParser(inline_comment_prefixes=(";", "#"))
    parser.read_string(text)
    return {name: dict(parser[name]) for name in parser.sections()}


def parse_python(text: str) -> object:
    return compile(text, "it", "exec", dont_inherit=True)


def parse_yaml(text: str) -> object:
    return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))


PARSERS: dict[str, Callable[[str], object]] = {".conf": parse_ini}
PARSER_ERRORS: tuple[type[Exception], ...] = (configparser.Error, SyntaxError, ValueError)
if sys.version_info >= (3, 11):  # Python 3.10 has no tomllib, and does not know newer syntax.
    PARSERS |= {".py": parse_python, ".toml": tomllib.loads}
if yaml is not None:
    PARSERS |= {".yaml": parse_yaml, ".yml": parse_yaml}
    PARSER_ERRORS += (yaml.YAMLError,)


def skipped() -> Iterator[str]:
    """Yield in words what cannot be checked with this Python."""
    if ".py" not in PARSERS:
        yield "the syntax of .py and .toml files, which is that of Python 3.11"
    if ".yaml" not in PARSERS:
        yield "the syntax of .yaml and .yml files, because PyYAML is not installed"


# The rules. Each yields a sentence for each mistake.


def check_presence(project: Project) -> Iterator[str]:
    for name in ALWAYS:
        if name not in project.files:
            yield f"{name} is missing."
    for name, targets in BY_TARGET.items():
        if (name in project.files) != (project.target in targets):
            state = "there" if name in project.files else "missing"
            yield f"{name} is {state}, but deploy_target is {project.target}."


def check_syntax(project: Project) -> Iterator[str]:
    yield from project.unparsable


def check_settings(project: Project) -> Iterator[str]:
    """The facts of the provider and the strictness stand in the settings once, as text."""
    try:
        values = list(named_values(ast.parse(project.files[SETTINGS])))
    except (KeyError, SyntaxError, ValueError):
        return  # Another rule reports it.
    for key, answer in RENDERED.items():
        seen = [value for name, value in values if name == key]
        if seen != [project.answers[answer]]:
            wanted = project.answers[answer]
            yield f"{SETTINGS} says {key} = {seen}, but the answers mean {wanted!r}."


def named_values(tree: ast.AST) -> Iterator[tuple[object, object]]:
    """Yield (key, value) of each entry of a dict, and (name, value) of each assigned constant.

    A value of a dict that is computed is None.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.Dict):
            for key, value in zip(node.keys, node.values, strict=True):
                yield getattr(key, "value", None), getattr(value, "value", None)
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            yield getattr(node.targets[0], "id", None), node.value.value


def check_programs(project: Project) -> Iterator[str]:
    """supervisord.conf runs the three programs, without a shell that keeps signals from them."""
    sections = project.parsed.get("supervisord.conf")
    if sections is not None:
        # A [group:x] counts too, because `supervisorctl status django` would find nothing with one.
        found = {name: section.get("command") for name, section in sections.items() if ":" in name}
        found.pop("rpcinterface:supervisor", None)
        if found != SUPERVISED:
            yield f"supervisord.conf runs {found}, not {SUPERVISED}."


def check_supervision(project: Project) -> Iterator[str]:
    """supervisord prints an `environment` in errors, and stopasgroup would end running tasks."""
    for name, section in project.parsed.get("supervisord.conf", {}).items():
        for option in ("environment", "stopasgroup"):
            if option in section:
                yield f"supervisord.conf: [{name}] must not set {option}."


def check_procfile(project: Project) -> Iterator[str]:
    lines = project.files.get("Procfile", "").splitlines()
    if lines and sorted(lines) != sorted(f"{name}: {text}" for name, text in PROCFILE.items()):
        yield f"Procfile has {lines}, not one line 'name: command' for each of {PROCFILE}."


def check_services(project: Project) -> Iterator[str]:
    """render.yaml has the target's services, and a Redis if the provider is Render."""
    if "render.yaml" not in project.parsed or project.target not in SERVICES:
        return
    blueprint = project.parsed["render.yaml"]
    wanted = SERVICES[project.target] + [("keyvalue", None)] * project.row["in_render_yaml"]
    try:
        found = [(entry["type"], entry.get("startCommand")) for entry in blueprint["services"]]
    except (AttributeError, KeyError, TypeError):
        yield "render.yaml has no list of services that have a type."
        return
    if found != wanted:
        yield f"render.yaml runs {found}, not {wanted}."


def check_rendered(project: Project) -> Iterator[str]:
    for name, text in project.files.items():
        # The title of the README may look like something that was not rendered.
        text = text.removeprefix(f"# {project.answers['project_name']}\n")
        if re.search(r"cookiecutter\.\w", text):
            yield f"{name} still says 'cookiecutter.'."
        if TAGS.search(text) and not name.startswith(("templates/", ".github/")):
            yield f"{name} still holds template tags."


def check_secrets(project: Project) -> Iterator[str]:
    for name, text in project.files.items():
        for what, pattern in SECRETS.items():
            made_up = "password" in what and name.startswith("tests/")
            if pattern.search(text) and not made_up:
                yield f"{name} holds {what}, which must not be in git."


def check_leftovers(project: Project) -> Iterator[str]:
    """Nothing came along that is left where the template's service has run.

    All that stands in the project's own folders came along. Beside them it may be the user's, who
    bakes into a folder with an .env. What came along is younger than the marker there: pre_gen
    writes that before cookiecutter writes its first file.
    """
    root = project.root
    inside = [path for name in WRITTEN.split() for path in below(root, name)]
    beside = [name for name in os.listdir(root) if is_young(root, name)]
    found = sorted(filter(is_leftover, [*beside, *inside]))
    if found:
        yield (
            f"{', '.join(found)} came along from the template's folder, where somebody has run the "
            "service: delete that there, and generate the project again."
        )


def is_young(root: str, name: str) -> bool:
    """Return whether it is younger than the marker; it is not where there is no marker."""
    try:
        marker = os.stat(os.path.join(root, MARKER))
        return os.stat(os.path.join(root, name)).st_mtime_ns > marker.st_mtime_ns
    except OSError:
        return False


CHECKS = (
    check_presence,
    check_syntax,
    check_settings,
    check_programs,
    check_supervision,
    check_services,
    check_procfile,
    check_rendered,
    check_secrets,
    check_leftovers,
)


# What the user sees


def make_executable(root: str) -> None:
    """Make scripts executable, because cookiecutter loses their mode when it unpacks a zip file."""
    for name, text in read(root, ["manage.py", "script"]).items():
        if text.startswith("#!"):
            path = os.path.join(root, name)
            mode = os.stat(path).st_mode
            # Whoever may read a script may run it.
            os.chmod(path, mode | (mode & 0o444) >> 2)


def given(answers: dict) -> str:
    """Return all five answers as a command line takes them."""
    texts = ['project_name="{project_name}"'.format(**answers)]
    return " ".join(texts + [f"{key}={answers[key]}" for key in QUESTIONS[1:]])


def summary(answers: dict) -> list[tuple[str, str]]:
    """Return (label, text) pairs: the answers, the Redis, its verification, the next command."""
    row, target = answers["_redis_providers"][answers["redis_provider"]], answers["deploy_target"]
    redis = row["label"]
    if row["tls"] == "none":
        redis += ": plain redis:// without TLS"
    redis += f", inside {row['network']}." if row["network"] else "."
    if target not in row["reachable_from"]:
        redis += f" WARNING: it cannot be reached from deploy_target {target}."
    mode = answers["__cert_reqs"]
    check = f"{mode} (the chain and the host name, or no connection)"
    if mode == "none":
        check = "none (encrypted, but anyone on the path can pose as your Redis)"
        if row["cert_reqs"] == "none":
            check += " until you pin it: `manage.py doctor --certificate`"
    elif answers["__check_hostname"] == "false":
        check = f"{mode} (the chain up to REDIS_CA_CERTS, or no connection)"
    if mode != "none" and row["ca"] in ("own", "provider_file", "self_signed"):
        check += "; set REDIS_CA_CERTS to its CA's certificate"
    if row["tls"] == "none":
        check += ", should the URL ever be rediss://"
    return [
        ("Answers", given(answers)),
        ("Redis", redis),
        ("Certificate", f"{check}."),
        ("Next", f"cd {answers['project_slug']} && ./script/dev"),
    ]


def wrapped(text: str, indent: str) -> str:
    lines = textwrap.wrap(
        text, 76, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    return "\n".join(lines)


def report(found: list[str], answers: dict) -> int:
    """Print the problems to stderr or the summary to stdout, and return the exit status."""
    for text in skipped():
        print(f"Not checked: {text}.", file=sys.stderr)
    if found:
        print("The project is not complete, which is a fault of the template:", file=sys.stderr)
        for text in found:
            print(wrapped(f"  - {text}", "    "), file=sys.stderr)
        print(wrapped(f"Answers: {given(answers)}", "  "), file=sys.stderr)
        print("Please report these lines to the template's maintainers.", file=sys.stderr)
        print(
            "(What follows is cookiecutter's own traceback; the reasons are above.)",
            file=sys.stderr,
        )
        return 1
    # cruft runs this hook at every update, and gives no _output_dir.
    if "_output_dir" in answers:
        try:
            for label, text in summary(answers):
                print(wrapped(f"{label}: {text}", "  "), flush=True)
        except OSError:  # Nobody reads the summary; the project is complete all the same.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 0


"""{% endraw %}From here on this file is rendered."""

RAW = r'''{{ cookiecutter | tojson }}'''  # fmt: skip

if __name__ == "__main__":
    ANSWERS = json.loads(RAW)
    FOUND = problems(os.getcwd(), ANSWERS)
    if not FOUND:
        make_executable(os.getcwd())
        if os.path.exists(MARKER):
            os.remove(MARKER)
    sys.exit(report(FOUND, ANSWERS))
