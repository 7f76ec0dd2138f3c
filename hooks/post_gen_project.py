"""Prove that what was written is complete, make its scripts executable, and remove the marker.

Cookiecutter renders this file and runs the copy in the new project. Rendering changes RAW only. The
rest is plain Python, 3.10 or newer, so the tests can import this file as it stands.
"""

import sys

if __name__ == "__main__":
    # The copy lies in $TMPDIR. With that folder on the path, a yaml.py there would be imported.
    sys.path.pop(0)
    # `import signal` takes 5 ms, in which Ctrl-C would show a traceback; `_signal` takes none.
    import _signal

    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)

import ast
import configparser
import json
import os
import re
import textwrap

if sys.version_info >= (3, 11):
    import tomllib
else:  # Python 3.10 has no tomllib.
    tomllib = None
try:
    import yaml
except ImportError:  # Cookiecutter brings PyYAML; without it, render.yaml is not checked.
    yaml = None

RAW = r'''{{ cookiecutter | tojson }}'''  # fmt: skip

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
WRAPPED = {"width": 76, "break_long_words": False, "break_on_hyphens": False}

# Seconds. supervisord stops one program after another, and hosts kill all of them after 30.
STOP_BUDGET = 28
PROGRAMS = ["program:celery_beat", "program:celery_worker", "program:django"]
PROCFILE = ["beat", "release", "web", "worker"]
BY_TARGET = {"render.yaml": ("render", "render_services"), "Procfile": ("procfile",)}
RENDERED = {
    "REDIS_CERT_REQS": "__cert_reqs",
    "REDIS_CHECK_HOSTNAME": "__check_hostname",
    "REDIS_DATABASES": "__databases",
    "REDIS_MAX_CONNECTIONS": "__max_connections",
    "REDIS_ALLOW_PLAINTEXT": "__plaintext_hosts",
    "CELERY_POLLING_INTERVAL": "__polling_interval",
    "CELERY_REMOTE_CONTROL": "__remote_control",
}

# What running a service leaves in its folder. Git ignores it, and cookiecutter copies it.
LEFTOVER = re.compile(
    r"__pycache__|.*\.pyc|\.(ruff|mypy|pytest)_cache|\.venv|\.env|db\.sqlite3.*|staticfiles"
    r"|supervisor\.sock|supervisord\.pid"
)
# Written as one string, this pattern would itself be a template tag of this file.
TAGS = re.compile("{[{" + "%]")
SHELL = re.compile(r"\b\w*sh\s+-\w*c\b|&&|\|")
PINNED = re.compile(r"[\w.-]+(\[[\w,.-]+\])?==[\w.!+]+( *;.*?)?( --hash=sha256:[0-9a-f]{64})+")
ELSEWHERE = re.compile(r"://|^\s*-(?!-hash=)|--\S*index|--find-links|--trusted-host", re.MULTILINE)
SECRETS = {
    "a private key": re.compile(r"BEGIN [A-Z ]*PRIVATE KEY-----(\s|\\n)*[\w+/=]{16}"),
    "a SECRET_KEY": re.compile(
        r"""SECRET_KEY(=["']?\w[^\s,()]*$|["']?\s*[:=]\s*["'](?=[^"']*\d)[^"'\s{]{32})""",
        re.MULTILINE,
    ),
    "a password in a URL": re.compile(r"://[^\s:/@]*:(?![A-Z_]+@|[{$<])[^\s:/@]+@"),
}

# The keys that render.yaml may have, and with `!` must have. Render's own schema is less strict.
BLUEPRINT = {
    "file": "services! databases envVarGroups",
    "web": "type! name! plan region runtime! buildCommand! preDeployCommand startCommand! "
    "healthCheckPath! maxShutdownDelaySeconds numInstances autoDeployTrigger envVars!",
    "worker": "type! name! plan region runtime! buildCommand! preDeployCommand startCommand! "
    "maxShutdownDelaySeconds numInstances autoDeployTrigger envVars!",
    "keyvalue": "type! name! plan region ipAllowList! maxmemoryPolicy!",
    "databases": "name! plan region databaseName user postgresMajorVersion diskSizeGB ipAllowList",
    "envVarGroups": "name! envVars!",
    "envVars": "key value sync generateValue fromService fromDatabase fromGroup",
    "fromService": "type! name! property!",
    "fromDatabase": "name! property!",
}
NOT_TEXT = {
    **dict.fromkeys(["services", "databases", "envVarGroups", "envVars", "ipAllowList"], list),
    **dict.fromkeys(["maxShutdownDelaySeconds", "numInstances", "diskSizeGB"], int),
    **dict.fromkeys(["sync", "generateValue"], bool),
    **dict.fromkeys(["fromService", "fromDatabase"], dict),
}


def problems(root, answers):
    """Return what is wrong with the project in the folder `root`, one sentence each."""
    files = read(root, WRITTEN.split())
    found = [text for check in CHECKS for text in check(files, answers)]
    return [*found, *leftover_problems(root)]


def skipped(answers):
    """Yield in words what cannot be checked with this Python."""
    if sys.version_info < (3, 11):
        yield "the syntax of .py and .toml files, which is that of Python 3.11"
    if yaml is None and answers["deploy_target"] in BY_TARGET["render.yaml"]:
        yield "render.yaml, because PyYAML is not installed"


def read(root, names):
    """Return {path: text} of these files of `root`, and of all files in folders of these names."""
    files = {}
    for name in names:
        for path in (name, *below(root, name)):
            place = os.path.join(root, path)
            if os.path.isfile(place) and not is_leftover(path):
                with open(place, encoding="utf-8", errors="replace") as file:
                    files[path] = file.read()
    return files


def below(root, name):
    """Yield the paths of all that is in this folder of `root`, but nothing inside a leftover."""
    for folder, folders, files in os.walk(os.path.join(root, name)):
        for entry in sorted([*folders, *files]):
            yield os.path.relpath(os.path.join(folder, entry), root).replace(os.sep, "/")
        folders[:] = [entry for entry in folders if not LEFTOVER.fullmatch(entry)]


def is_leftover(path):
    return LEFTOVER.fullmatch(path.rpartition("/")[2]) is not None


def leftover_problems(root):
    """Yield a sentence if something came along that is left where the template's service has run.

    All that stands in the project's own folders came along. Beside them it may be the user's, who
    bakes into a folder with an .env. What came along is younger than the marker there: pre_gen
    writes that before cookiecutter writes its first file.
    """
    inside = [path for name in WRITTEN.split() for path in below(root, name)]
    beside = [name for name in os.listdir(root) if is_young(root, name)]
    found = sorted(filter(is_leftover, [*beside, *inside]))
    if found:
        yield (
            f"{', '.join(found)} came along from the template's folder, where somebody has run the "
            "service: delete that there, and generate the project again."
        )


def is_young(root, name):
    """Whether the file is younger than the marker; it is not where there is no marker."""
    try:
        marker = os.stat(os.path.join(root, MARKER))
        return os.stat(os.path.join(root, name)).st_mtime_ns > marker.st_mtime_ns
    except OSError:
        return False


def check_presence(files, answers):
    target = answers["deploy_target"]
    for name in ("manage.py", "gunicorn.conf.py", "pyproject.toml", "supervisord.conf", SETTINGS):
        if name not in files:
            yield f"{name} is missing."
    for name, targets in BY_TARGET.items():
        if (name in files) != (target in targets):
            state = "there" if name in files else "missing"
            yield f"{name} is {state}, but deploy_target is {target}."


def check_python(files, answers):
    for name, text in files.items():
        if name.endswith(".py") and sys.version_info >= (3, 11):
            try:
                compile(text, name, "exec", dont_inherit=True)
            except (SyntaxError, ValueError) as error:
                yield f"{name} is not Python: {error}."


def check_settings(files, answers):
    try:
        tree = ast.parse(files[SETTINGS])
    except (KeyError, SyntaxError, ValueError):
        return  # check_presence or check_python reports it.
    dicts = [node for node in ast.walk(tree) if isinstance(node, ast.Dict)]
    pairs = [pair for node in dicts for pair in zip(node.keys, node.values, strict=True)]
    for key, answer in RENDERED.items():
        seen = [getattr(v, "value", None) for k, v in pairs if getattr(k, "value", None) == key]
        if seen != [answers[answer]]:
            yield f"{SETTINGS} says {key} = {seen}, but the answers mean {answers[answer]!r}."


def supervised(files):
    """Return the sections of supervisord.conf, the seconds that a stop may take, and an error."""
    parser = configparser.RawConfigParser(inline_comment_prefixes=(";", "#"))
    try:
        parser.read_string(files.get("supervisord.conf", ""))
        programs = [parser[name] for name in parser.sections() if name.startswith("program:")]
        return parser, sum(int(p.get("stopwaitsecs", "10")) for p in programs), None
    except (configparser.Error, ValueError) as error:
        return {}, 0, " ".join(str(error).split())


def check_supervisord(files, answers):
    sections, seconds, error = supervised(files)
    if error:
        yield f"supervisord.conf cannot be parsed: {error}."
        return
    # A [group:x] counts too, because `supervisorctl status django` would find nothing with one.
    found = sorted(n for n in sections if ":" in n and not n.startswith("rpcinterface:"))
    if found != PROGRAMS:
        yield f"supervisord.conf has {found}, not {PROGRAMS}."
    for name, section in sections.items():
        for option in ("environment", "stopasgroup"):
            if option in section:
                yield f"supervisord.conf: [{name}] must not set {option}."
        if SHELL.search(section.get("command", "")):
            yield f"supervisord.conf: [{name}] runs through a shell, which keeps signals from it."
    if seconds > STOP_BUDGET:
        yield f"supervisord.conf: its stopwaitsecs add up to {seconds} s, above {STOP_BUDGET} s."


def check_procfile(files, answers):
    if "Procfile" in files:
        lines = files["Procfile"].splitlines()
        names = [line.partition(": ")[0] for line in lines if line.partition(": ")[2].strip()]
        if len(names) != len(lines) or sorted(names) != PROCFILE:
            yield f"Procfile must be one line 'name: command' for each of {', '.join(PROCFILE)}."


def check_toml(files, answers):
    if tomllib is None:
        return
    try:
        tomllib.loads(files.get("pyproject.toml", ""))
    except tomllib.TOMLDecodeError as error:
        yield f"pyproject.toml cannot be parsed: {error}."


def check_requirements(files, answers):
    for name in ("requirements.txt", "requirements-dev.txt"):
        text = files.get(name, "")
        if ELSEWHERE.search(text):
            yield f"{name} names an index or a host, or holds a pip option."
        text = re.sub(r"(^|\s)#.*", "", text).replace("\\\n", " ")
        lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
        for line in lines or ["nothing"]:
            if not PINNED.fullmatch(line):
                yield f"{name}: {line[:40]!r} is not pinned by == and sha256 hashes."


def check_rendered(files, answers):
    for name, text in files.items():
        # The title of the README may look like something that was not rendered.
        text = text.removeprefix(f"# {answers['project_name']}\n")
        if re.search(r"cookiecutter\.\w", text):
            yield f"{name} still says 'cookiecutter.'."
        if TAGS.search(text) and not name.startswith(("templates/", ".github/")):
            yield f"{name} still holds template tags."


def check_secrets(files, answers):
    for name, text in files.items():
        for what, pattern in SECRETS.items():
            made_up = "password" in what and name.startswith("tests/")
            if pattern.search(text) and not made_up:
                yield f"{name} holds {what}, which must not be in git."


def check_render(files, answers):
    if yaml is None or "render.yaml" not in files:
        return
    try:
        blueprint = yaml.load(files["render.yaml"], getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as error:
        yield f"render.yaml cannot be parsed: {' '.join(str(error).split())}."
        return
    # The rules expect a file of the right shape.
    wrong = list(shape("file", blueprint)) or list(rules(blueprint, files, answers))
    yield from (f"render.yaml: {text}" for text in wrong)


def shape(kind, thing):
    """Yield which keys of a part of render.yaml are missing, unknown or of the wrong type."""
    if kind == "services":
        kind = thing.get("type") if isinstance(thing, dict) else None
        if kind not in ("web", "worker", "keyvalue"):
            yield f"a service of type {kind!r}: write web, worker or keyvalue."
            return
    if not isinstance(thing, dict):
        yield f"an entry of {kind} is not a mapping."
        return
    where = f"{kind} {thing.get('name') or thing.get('key') or ''}".strip()
    allowed = BLUEPRINT[kind].split()
    for key in (key[:-1] for key in allowed if key.endswith("!") and key[:-1] not in thing):
        yield f"{where} has no {key}."
    pair = len(thing) == 2 and "key" in thing and "fromGroup" not in thing
    if kind == "envVars" and not pair and set(thing) != {"fromGroup"}:
        yield f"{where} needs a key and one source, or fromGroup alone."
    for key, value in thing.items():
        wanted = NOT_TEXT.get(key, str)
        if key not in allowed and f"{key}!" not in allowed:
            yield f"{where} must not have {key}."
        elif type(value) is not wanted:
            hint = ": put it in quotes" if wanted is str else ""
            yield f"{where}: {key} is {value!r}, not {wanted.__name__}{hint}."
        elif key in BLUEPRINT or key == "services":
            for part in value if wanted is list else [value]:
                yield from shape(key, part)


def rules(blueprint, files, answers):
    """Yield the mistakes of a render.yaml whose shape is right."""
    services, databases = blueprint["services"], blueprint.get("databases", [])
    groups = blueprint.get("envVarGroups", [])
    keyvalues = [service for service in services if service["type"] == "keyvalue"]
    processes = [service for service in services if service["type"] != "keyvalue"]
    targets = [f"{service['type']} {service['name']}" for service in services]
    makers = {
        g["name"] for g in groups if {"key": "SECRET_KEY", "generateValue": True} in g["envVars"]
    }
    used = set()

    if len({thing["name"] for thing in (*services, *databases)}) < len(services) + len(databases):
        yield "two services or databases have the same name."
    if len({thing.get("region") for thing in (*services, *databases)}) > 1:
        yield "regions differ, and private addresses do not cross regions."
    if bool(keyvalues) != answers["_redis_providers"][answers["redis_provider"]]["in_render_yaml"]:
        yield f"{len(keyvalues)} keyvalue services do not fit redis_provider."
    for service in keyvalues:
        if service["ipAllowList"]:
            yield f"{service['name']}: ipAllowList must be [], or it is open to the internet."
        if service["maxmemoryPolicy"] != "noeviction":
            yield f"{service['name']}: maxmemoryPolicy must be noeviction, or tasks are dropped."
    for service in processes:
        name, variables = service["name"], service["envVars"]
        if service["type"] == "worker" and service.get("plan") == "free":
            yield f"{name}: a worker cannot have plan free."
        if service.get("healthCheckPath", "/healthz") != "/healthz":
            yield f"{name}: healthCheckPath must be /healthz."
        delay = service.get("maxShutdownDelaySeconds", 30)
        if not 1 <= delay <= 300:
            yield f"{name}: maxShutdownDelaySeconds must be from 1 to 300."
        if ".supervise" in service["startCommand"] and delay < supervised(files)[1]:
            yield f"{name}: maxShutdownDelaySeconds {delay} is below the sum of stopwaitsecs."
        mine = {variable.get("fromGroup") for variable in variables}
        shared = [v for group in groups if group["name"] in mine for v in group["envVars"]]
        keys = [variable.get("key") for variable in (*variables, *shared)]
        if service["type"] == "web" and "WEB_CONCURRENCY" not in keys:
            yield f"{name}: WEB_CONCURRENCY must be written out, its default differs."
        used |= mine & makers
        if not mine & makers or keys.count("SECRET_KEY") > 1:
            yield f"{name}: SECRET_KEY must come from a group with generateValue, only."
    if len(used) > 1:
        yield "SECRET_KEY comes from several groups, so the services would not agree on it."
    for holder in (*processes, *groups):
        for variable in holder["envVars"]:
            where = f"{holder['name']}: {variable.get('key') or 'fromGroup'}"
            source, database = variable.get("fromService"), variable.get("fromDatabase")
            if holder in groups and {"fromService", "fromDatabase", "sync"} & set(variable):
                yield f"{where} is in a group, where Render ignores it."
            if source and source["property"] != "connectionString":
                yield f"{where} must take the property connectionString."
            if source and f"{source['type']} {source['name']}" not in targets:
                yield f"{where} refers to a service that does not exist."
            if database and database["name"] not in [other["name"] for other in databases]:
                yield f"{where} refers to a database that does not exist."
            if variable.get("fromGroup") not in [None, *(group["name"] for group in groups)]:
                yield f"{where} refers to a group that does not exist."
            version = variable.get("value") if variable.get("key") == "PYTHON_VERSION" else None
            if version and not re.fullmatch(r"\d+\.\d+\.\d+", version):
                yield f"{where} must be whole, as in '3.13.5'."


CHECKS = (
    check_presence,
    check_python,
    check_settings,
    check_supervisord,
    check_render,
    check_procfile,
    check_toml,
    check_requirements,
    check_rendered,
    check_secrets,
)


def make_executable(root):
    """Make scripts executable, because cookiecutter loses their mode when it unpacks a zip file."""
    for name, text in read(root, ["manage.py", "script"]).items():
        if text.startswith("#!"):
            path = os.path.join(root, name)
            mode = os.stat(path).st_mode
            # Whoever may read a script may run it.
            os.chmod(path, mode | (mode & 0o444) >> 2)


def given(answers):
    """Return all five answers as a command line takes them."""
    texts = ['project_name="{project_name}"'.format(**answers)]
    return " ".join(texts + [f"{key}={answers[key]}" for key in QUESTIONS[1:]])


def summary(answers):
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


def wrapped(text, indent):
    return "\n".join(textwrap.wrap(text, subsequent_indent=indent, **WRAPPED))


def report(found, answers):
    """Print the problems to stderr or the summary to stdout, and return the exit status."""
    for text in skipped(answers):
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


if __name__ == "__main__":
    ANSWERS = json.loads(RAW)
    FOUND = problems(os.getcwd(), ANSWERS)
    if not FOUND:
        make_executable(os.getcwd())
        if os.path.exists(MARKER):
            os.remove(MARKER)
    sys.exit(report(FOUND, ANSWERS))
