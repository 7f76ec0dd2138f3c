"""Values that are not questions, and answers that avoid the questions: no wrong project."""

import copy
import datetime
import json
import re
import sys

import pytest

from harness.answers import CONTEXT, QUESTIONS, check_keys, each, resolved
from harness.bakes import REPLAY, in_process, leftovers, reasons_of, spoil
from harness.cli import tree

DEFAULTS = {key: resolved()[key] for key in QUESTIONS}
DERIVED = [
    key for key in CONTEXT if key.startswith("__") and key not in ("__folder", "__prompts__")
]
NOT_OURS = (
    "{} is not as in this template: leave it out of the command line and of your configuration "
    "file, and do not --replay the answers to another release."
)
NOT_TEXT = "{} is {}, which is not text: answer with a string."
UNKNOWN = r"{} provided for choice variable {}, but the choices are \[.*\]\."
GONE = object()


def replay(**changes):
    """Return the stored context of the defaults, changed; GONE takes a value out."""
    context = copy.deepcopy(resolved()) | changes
    return {key: value for key, value in context.items() if value is not GONE}


def rows(**changes):
    """Return the facts with other rows."""
    return copy.deepcopy(CONTEXT["_redis_providers"]) | changes


def summary(output):
    """{question: answer} as the last lines of a bake show them."""
    entry = output.partition("Answers: ")[2].partition("\nRedis: ")[0]
    name, rest = re.fullmatch(r'project_name="(.*?)" (.*)', entry.replace("\n  ", " ")).groups()
    return {"project_name": name} | dict(pair.split("=") for pair in rest.split(" "))


def refused(done):
    """Return the reasons that a refused command printed."""
    assert done.returncode == 1, f"returncode={done.returncode}"
    return reasons_of(done.stderr)


@pytest.fixture
def home(home):
    """The account of a user who has a file of their own."""
    (home.work / "notes.txt").write_text("mine\n")
    return home


@pytest.fixture
def run(home, template, post_gen):
    """run(way=..., ...) -> the finished command. AssertionError if it left half a project, or one
    that is not complete or not what its summary says, or anything else.
    """

    whole = template

    def run(*flags, template=whole, **way):
        check_keys(way, WAYS)
        command = home.command(template, *flags, private=way.get("given"))
        for name, value in way.items():
            command = WAYS[name](home, command, value)
        before = tree(home.home.parent)
        done = home.run(command)
        context, project = {}, None
        if done.returncode == 0:
            (kept,) = (home.home.parent / REPLAY).glob("*.json")
            context = json.loads(kept.read_text())["cookiecutter"]
            project = home.work / context["project_slug"]
            assert post_gen.problems(project, context) == []
            assert not (project / "INCOMPLETE.txt").exists()
            assert summary(done.stdout) == {key: context[key] for key in QUESTIONS}
        left = leftovers(before, tree(home.home.parent), project and f"work/{project.name}")
        assert left == []
        return done

    return run


def with_config(home, command, context):
    home.configure(default_context=context)
    return command


def with_api(home, command, context):
    template = next(word for word in command if word.endswith("/template"))
    call = f"cookiecutter({template!r}, no_input=True, extra_context={context!r})"
    lines = ["import datetime", "from cookiecutter.main import cookiecutter"]
    return [sys.executable, "-c", "\n".join([*lines, call])]


def with_replay(home, command, context):
    folder = home.home.parent / REPLAY
    folder.mkdir()
    (folder / "template.json").write_text(json.dumps({"cookiecutter": context}))
    return ["--replay" if word == "--no-input" else word for word in command]


def with_replay_file(home, command, file):
    return [f"--replay-file={file}" if word == "--no-input" else word for word in command]


# {name: what it does with (home, command, value)}
WAYS = {
    "given": lambda home, command, value: command,
    "config": with_config,
    "api": with_api,
    "replay": with_replay,
    "replay_file": with_replay_file,
}

# What a hook can refuse: {what: (the way, the beginning of each sentence)}

REFUSED = {
    "derived values": (
        {"given": dict.fromkeys(DERIVED, "x")},
        [
            f"{key} is 'x', but it follows from the other answers and must be "
            for key in sorted(DERIVED)
        ],
    ),
    "no verification, by the derived value": (
        {"given": {"redis_provider": "upstash", "__cert_reqs": "none"}},
        ["__cert_reqs is 'none', but it follows from the other answers and must be 'required'"],
    ),
    "another order of patterns": (
        {"given": {"_copy_without_render": "templates/*.txt"}},
        [NOT_OURS.format("_copy_without_render")],
    ),
    "all kinds of answers": (
        {
            "given": {
                "project_name": "O'Brien",
                "project_slug": "con",
                "redis_provider": "heroku",
                "cert_strictness": "optional",
                "__databases": "1",
            }
        },
        ["project_name ", "project_slug ", "cert_strictness ", "__databases "],
    ),
    "a fact merged by a configuration file": (
        {"config": {"_redis_providers": {"upstash": {"cert_reqs": "none"}}}},
        [NOT_OURS.format("_redis_providers")],
    ),
    "a fact of another provider": (
        {"config": {"redis_provider": "aiven", "_redis_providers": {"upstash": {"port": 1}}}},
        [NOT_OURS.format("_redis_providers")],
    ),
    "a provider merged by a configuration file": (
        {"config": {"_redis_providers": {"mine": {"cert_reqs": "none"}}}},
        [NOT_OURS.format("_redis_providers")],
    ),
    "fewer patterns, by a configuration file": (
        {"config": {"_copy_without_render": []}},
        [NOT_OURS.format("_copy_without_render")],
    ),
    "options of Jinja, by a configuration file": (
        {"config": {"_jinja2_env_vars": {"trim_blocks": False}}},
        [NOT_OURS.format("_jinja2_env_vars")],
    ),
    "lines that are Jinja's, in the hooks too": (
        {"config": {"_jinja2_env_vars": {"line_statement_prefix": "#"}}},
        [NOT_OURS.format("_jinja2_env_vars")],
    ),
    "comments that are Jinja's, in the hooks too": (
        {"config": {"_jinja2_env_vars": {"line_comment_prefix": "#"}}},
        [NOT_OURS.format("_jinja2_env_vars")],
    ),
    "all private values, by a configuration file": (
        {
            "config": {
                "_redis_providers": {"mine": {}},
                "_copy_without_render": ["templates/*.txt"],
                "_jinja2_env_vars": {"autoescape": True},
                "__cert_reqs": {"a": ["b"]},
            }
        },
        [
            NOT_OURS.format(key)
            for key in ("_copy_without_render", "_jinja2_env_vars", "_redis_providers")
        ],
    ),
    "a derived value that is not text, by a configuration file": (
        {"config": {"__cert_reqs": {"a": ["b"]}}},
        ["__cert_reqs is {'a': ['b']}, but it follows"],
    ),
    "a number for the package, by a configuration file": (
        {"config": {"project_slug": 7}},
        [NOT_TEXT.format("project_slug", 7)],
    ),
    "nothing for the package, by a configuration file": (
        {"config": {"project_slug": None}},
        [NOT_TEXT.format("project_slug", None)],
    ),
    "a fact merged through the API": (
        {"api": {"_redis_providers": {"upstash": {"cert_reqs": "none"}}}},
        [NOT_OURS.format("_redis_providers")],
    ),
    "facts of a wrong kind through the API": (
        {"api": {"_redis_providers": {"render": {"databases": "16"}}}},
        [NOT_OURS.format("_redis_providers")],
    ),
    "an answer within an answer through the API": (
        {"api": {"__cert_reqs": ["required"]}},
        ["__cert_reqs is ['required'], but it follows"],
    ),
    "nothing for a derived value through the API": (
        {"api": {"__cert_reqs": None, "__databases": 16, "__remote_control": True}},
        ["__cert_reqs is None, but it follows", "__remote_control is True, but it follows"],
    ),
    "older facts": (
        {"replay": replay(_redis_providers=rows(upstash={"cert_reqs": "none"}))},
        [NOT_OURS.format("_redis_providers")],
    ),
    "a provider that is gone": (
        {
            "replay": replay(
                redis_provider="redis_labs", cert_strictness="strict", deploy_target="k8s"
            )
        },
        [
            "redis_provider 'redis_labs' is not known: answer one of aiven, ",
            "cert_strictness 'strict' is not known: answer one of recommended, required, ",
            "deploy_target 'k8s' is not known: answer one of render, render_services, ",
        ],
    ),
    "derived values of an older release": (
        {"replay": replay(__polling_interval="5", __tier="2")},
        [
            "__polling_interval is '5', but it follows from the other answers and must be '1': ",
            "__tier is '2', but it follows from the other answers and must be None: leave it out.",
        ],
    ),
    "values that the template has no more": (
        {"replay": replay(_facts_version="2026-01-01", redis_tier="free")},
        [NOT_OURS.format(key) for key in ("_facts_version", "redis_tier")],
    ),
    "settings of cookiecutter": (
        {"replay": replay(_new_lines="\r\n", _extensions=["jinja2.ext.do"])},
        [NOT_OURS.format(key) for key in ("_extensions", "_new_lines")],
    ),
    "a replay of wrong kinds": (
        {
            "replay": replay(
                project_name=None,
                project_slug=7,
                redis_provider=["upstash"],
                cert_strictness={"required": True},
                deploy_target=True,
            )
        },
        [
            NOT_TEXT.format("project_name", "None"),
            NOT_TEXT.format("project_slug", "7"),
            NOT_TEXT.format("redis_provider", "['upstash']"),
            NOT_TEXT.format("cert_strictness", "{'required': True}"),
            NOT_TEXT.format("deploy_target", "True"),
        ],
    ),
    "a replay of no number": (
        {"replay": replay(project_name=float("nan"))},
        [NOT_TEXT.format("project_name", "nan")],
    ),
    "a replay of another's answers": (
        {"replay": replay(project_name="O'Brien", project_slug="con", __folder=["con"])},
        ["project_name ", "project_slug "],
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_a_hook_can_see_is_refused(run, what):
    way, beginnings = REFUSED[what]
    reasons = refused(run(**way))
    assert len(reasons) == len(beginnings), reasons
    for reason, beginning in zip(reasons, beginnings, strict=True):
        assert reason.startswith(beginning)


# What ends in cookiecutter's own error, before any hook: {what: (the way, the last line)}

OWN = {
    "a choice that is unknown": (
        {"given": {"redis_provider": "upstach"}},
        "ValueError: " + UNKNOWN.format("upstach", "redis_provider"),
    ),
    "text for the facts": (
        {"given": {"_redis_providers": "x"}},
        r"jinja2\.exceptions\.UndefinedError: 'str object' has no attribute 'render'",
    ),
    "text for the patterns": (
        {"given": {"_copy_without_render": "*"}},
        "ValueError: " + UNKNOWN.format(r"\*", "_copy_without_render"),
    ),
    "text for the options of Jinja": (
        {"given": {"_jinja2_env_vars": "x"}},
        "TypeError: .* must be a mapping, not str",
    ),
    "a folder": (
        {"given": {"__folder": "x"}},
        "ValueError: " + UNKNOWN.format("x", "__folder"),
    ),
    "a folder beside a path": (
        {"given": {"__folder": "x", "project_slug": "../a/b"}},
        "ValueError: " + UNKNOWN.format("x", "__folder"),
    ),
    "other delimiters": (
        {"config": {"_jinja2_env_vars": {"variable_start_string": "<<"}}},
        r"cookiecutter\.exceptions\.NonTemplatedInputDirException",
    ),
    "an option that Jinja does not have": (
        {"config": {"_jinja2_env_vars": {"trim": True}}},
        "TypeError: .* got an unexpected keyword argument 'trim'",
    ),
    "a list for all answers": (
        {"config": ["project_name"]},
        "AttributeError: 'list' object has no attribute 'items'",
    ),
    "a date": (
        {"api": {"project_name": datetime.date(2026, 11, 22)}},
        "TypeError: Object of type date is not JSON serializable",
    ),
    "an older release, without what is derived now": (
        {"replay": replay(__cert_reqs=GONE)},
        r"jinja2\.exceptions\.UndefinedError: .* has no attribute 'cert_strictness'",
    ),
    "an extension that is none": (
        {"replay": replay(_extensions=["json.tool"])},
        "TypeError: 'module' object is not callable",
    ),
    "a replay that is a list": (
        {"replay": []},
        "AttributeError: 'list' object has no attribute 'items'",
    ),
}


@pytest.mark.parametrize("what", OWN)
def test_what_no_hook_can_see_is_cookiecutters_own_error(run, what):
    way, last = OWN[what]
    done = run(**way)
    assert done.returncode == 1
    assert "Traceback (most recent call last):" in done.stderr
    assert re.fullmatch(last, done.stderr.splitlines()[-1])


# What cookiecutter silently ignores: {what: (the way, what is in force besides the defaults)}

TAKEN = {
    "nothing": ({}, {}),
    "mistyped keys": (
        {"given": {"redis_provder": "upstash", "project-slug": "shop", "PROJECT_NAME": "Shop"}},
        {},
    ),
    "a mistyped key beside a good one": (
        {"given": {"redis_provider": "upstash", "certstrictness": "none"}},
        {"redis_provider": "upstash"},
    ),
    "settings of cookiecutter": (
        {
            "given": {
                "_template": "x",
                "_output_dir": "/etc",
                "_repo_dir": "/etc",
                "_checkout": "x",
                "_cookiecutter": "x",
                "_extensions": "os",
                "_new_lines": "x",
            }
        },
        {},
    ),
    "texts of the questions": ({"given": {"__prompts__": "x"}}, {}),
    "a configuration file": (
        {"config": {"project_name": "Shop", "redis_provider": "aiven", "deploy_target": "server"}},
        {
            "project_name": "Shop",
            "project_slug": "shop",
            "redis_provider": "aiven",
            "deploy_target": "server",
        },
    ),
    "the command line over a configuration file": (
        {"config": {"redis_provider": "aiven"}, "given": {"redis_provider": "upstash"}},
        {"redis_provider": "upstash"},
    ),
    "an empty configuration": ({"config": None}, {}),
    "a mistyped key in a configuration file": ({"config": {"redis_provder": "aiven"}}, {}),
    "a choice through the API": (
        {"api": {"redis_provider": ["upstash", "render"]}},
        {"redis_provider": "upstash"},
    ),
    "the same facts through the API": (
        {"api": {"_redis_providers": {"upstash": {"cert_reqs": "required"}}}},
        {},
    ),
    "a replay": (
        {"replay": replay(project_name="Shop", deploy_target="server")},
        {"project_name": "Shop", "deploy_target": "server"},
    ),
    "a replay without facts": ({"replay": replay(_redis_providers=GONE)}, {}),
}


@pytest.mark.parametrize("what", each(4, TAKEN))
def test_the_summary_shows_what_is_effective(run, what):
    way, effective = TAKEN[what]
    done = run(**way)
    assert (done.returncode, done.stderr) == (0, "")
    assert summary(done.stdout) == DEFAULTS | effective


@pytest.mark.parametrize(
    ("key", "value"),
    [("redis_provider", "upstach"), ("cert_strictness", None), ("deploy_target", 7)],
)
def test_after_a_bad_value_the_rest_of_a_configuration_file_is_lost(run, key, value):
    bad = {"project_name": "Shop", key: value, "project_slug": "lost"}
    done = run(config=bad)
    assert done.returncode == 0
    assert f"UserWarning: Invalid default received: {value} provided for " in done.stderr
    assert summary(done.stdout) == DEFAULTS | {"project_name": "Shop", "project_slug": "shop"}


def test_the_default_configuration_ignores_the_users(run):
    done = run(
        "--default-config", config={"redis_provider": "aiven", "_redis_providers": {"a": {}}}
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert summary(done.stdout) == DEFAULTS


@pytest.mark.parametrize("way", ["--config-file", "COOKIECUTTER_CONFIG"])
def test_a_configuration_file_from_elsewhere_is_judged_alike(home, run, way):
    home.configure(default_context={"__cert_reqs": "none"})
    other = (home.home / ".cookiecutterrc").rename(home.home / "other.yaml")
    home.env |= {way: str(other)} if way.isupper() else {}
    done = run(*([] if way.isupper() else [way, str(other)]))
    [reason] = refused(done)
    assert reason.startswith("__cert_reqs is 'none', but it follows")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "ConfigDoesNotExistException: Config file .* does not exist."),
        ("a: [", "InvalidConfiguration: Unable to parse YAML file .*"),
        ("[a]", "InvalidConfiguration: Top-level element of YAML file .* should be an object."),
    ],
)
def test_a_configuration_file_that_cannot_be_read_is_an_error(home, run, text, said):
    config = home.home / "config.yaml"
    if text:
        config.write_text(text)
    done = run("--config-file", str(config))
    assert done.returncode == 1
    assert re.fullmatch(r"cookiecutter\.exceptions\." + said, done.stderr.splitlines()[-1])


@pytest.mark.parametrize("text", ["", "{", "{}", "[]", None])
def test_a_replay_file_that_cannot_be_read_is_an_error(home, run, text):
    kept = home.home / "kept.json"
    if text is not None:
        kept.write_text(text)
    done = run(replay_file=kept)
    assert done.returncode == 1
    lasts = {
        "JSONDecodeError": ["", "{"],
        "Context is required to contain a cookiecutter key": ["{}", "[]"],
        "No such file or directory": [None],
    }
    [last] = [last for last, texts in lasts.items() if text in texts]
    assert last in done.stderr.splitlines()[-1]


def test_a_replay_takes_no_answers(run):
    done = run(given={"redis_provider": "upstash"}, replay=replay())
    assert done.returncode == 1
    assert done.stdout.startswith("You can not use both replay and no_input or extra_context")


def test_an_argument_that_is_no_answer_is_an_error(home, template):
    done = home.run([*home.command(template), "upstash"])
    assert done.returncode == 2
    assert "'upstash' doesn't match that form" in done.stderr
    assert list(home.work.iterdir()) == [home.work / "notes.txt"]


# Kinds of values that only Python and JSON have

KINDS = [None, True, 7, 1.5, {"a": "b"}, b"x", (1,), ["nowhere"], []]


@pytest.mark.parametrize("key", QUESTIONS[2:])
def test_a_choice_of_another_kind_is_unknown_to_cookiecutter(home, template, capfd, key):
    before = tree(home.home.parent)
    for kind in KINDS:
        with pytest.raises(ValueError, match=f"provided for .*{key}|The list of choices is empty"):
            in_process(home, template, {key: kind}, capfd)
        (home.home / "config.yaml").unlink()
    assert leftovers(before, tree(home.home.parent)) == []


@pytest.mark.parametrize(
    ("key", "kind", "said"),
    [
        ("project_name", None, NOT_TEXT.format("project_name", None)),
        ("project_name", True, NOT_TEXT.format("project_name", True)),
        ("project_name", 7, NOT_TEXT.format("project_name", 7)),
        ("project_name", 1.10, NOT_TEXT.format("project_name", 1.1)),
        ("project_name", ["Shop"], NOT_TEXT.format("project_name", ["Shop"])),
        ("project_name", ["{{ 7*7 }}"], NOT_TEXT.format("project_name", ["{{ 7*7 }}"])),
        ("project_name", {"a": "b"}, "has no attribute 'project_name'"),
        ("project_name", b"x", "Object of type bytes is not JSON serializable"),
        ("project_name", (1,), NOT_TEXT.format("project_name", [1])),
        ("project_name", [], "The list of choices is empty"),
        ("project_slug", None, NOT_TEXT.format("project_slug", None)),
        ("project_slug", True, NOT_TEXT.format("project_slug", True)),
        ("project_slug", 7, NOT_TEXT.format("project_slug", 7)),
        ("project_slug", 1.5, NOT_TEXT.format("project_slug", 1.5)),
        ("project_slug", ["shop"], NOT_TEXT.format("project_slug", ["shop"])),
        ("project_slug", {"a": "b"}, "has no attribute 'project_slug'"),
        ("project_slug", b"x", "Object of type bytes is not JSON serializable"),
        ("project_slug", (1,), NOT_TEXT.format("project_slug", [1])),
    ],
)
def test_a_name_of_another_kind_makes_no_project(home, template, capfd, key, kind, said):
    before = tree(home.home.parent)
    try:
        ended = in_process(home, template, {key: kind}, capfd)
        what = "\n".join(ended.reasons) or ended.crash
        assert ended.project is None
    except ValueError as error:
        what = str(error)
        (home.home / "config.yaml").unlink()
    assert said in what
    assert leftovers(before, tree(home.home.parent)) == []


# The checks themselves: {what is wrong: (hook, code at its end, the way, what a check says)}

WRONG = {
    "what is given is taken": (
        "pre_gen",
        "def problems(*_):\n    return []",
        {"given": {"__cert_reqs": "none"}},
        "returncode=0",
    ),
    "a file is left": (
        "pre_gen",
        "reported = report\ndef report(found):\n    open('../x', 'w')\n    return reported(found)",
        {"given": {"__cert_reqs": "none"}},
        "work/x",
    ),
    "the summary shows other answers": (
        "post_gen",
        "def summary(answers):\n    return [('Answers', 'project_name=\"x\" a=b'), ('Redis', 'x')]",
        {},
        "'a': 'b'",
    ),
    "a project is not complete": (
        "post_gen",
        "def problems(*_):\n    return os.remove('manage.py')",
        {},
        "manage.py is missing",
    ),
    "the marker stays": ("post_gen", "MARKER = 'x'", {}, "INCOMPLETE.txt"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_seen(run, template, tmp_path, wrong):
    hook, code, way, said = WRONG[wrong]
    broken = spoil(template, tmp_path / "broken" / "template", hook, code)
    with pytest.raises(AssertionError, match=re.escape(said)):
        refused(run(template=broken, **way))


def test_an_unknown_way_is_an_error(run):
    with pytest.raises(ValueError, match="extra"):
        run(extra={})
