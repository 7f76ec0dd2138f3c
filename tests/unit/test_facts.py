"""The provider facts, the questions about them, and the page made from them."""

import fnmatch
import itertools
import json
import re
import string

import providers_table
import pytest
from cookiecutter.environment import StrictEnvironment
from hypothesis import example, given
from hypothesis import strategies as st

from harness import stand_ins
from harness.answers import CONTEXT as ANSWERS
from harness.answers import QUESTIONS, ROOT, ROWS

WIDTH = 76

NoneType = type(None)
TYPES = {
    "label": (str,),
    "url_env": (str,),
    "url_form": (str,),
    "port": (int, NoneType),
    "tls": (str,),
    "ca": (str,),
    "cert_reqs": (str,),
    "check_hostname": (bool,),
    "databases": (int,),
    "idle_timeout_s": (int, NoneType),
    "max_connections": (int, NoneType),
    "eviction": (str,),
    "billed_per_command": (bool,),
    "cluster_mode": (bool,),
    "refused_commands": (list,),
    "plaintext_hosts": (str,),
    "in_render_yaml": (bool,),
    "reachable_from": (list,),
    "network": (str,),
    "notes": (str,),
    "believed": (list,),
    "source": (str,),
    "read_on": (str,),
}
WORDS = {
    "tls": {"none", "optional", "mandatory"},
    "ca": {"none", "system", "provider_file", "self_signed", "own"},
    "cert_reqs": {"required", "none"},
    "eviction": {
        "noeviction",
        *(f"{keys}-{how}" for keys in ("allkeys", "volatile") for how in ("lru", "lfu", "random")),
        "volatile-ttl",
    },
}
# Values that need no escaping in Python, TOML, YAML, INI, shell and Markdown.
PLAIN = re.compile(r"[A-Za-z0-9 .,:/()=+_-]*")
PATTERNS = {
    "label": PLAIN,
    "network": PLAIN,
    "notes": re.compile(r"[A-Z][A-Za-z0-9 .,:/()=+_-]{20,299}\."),
    "url_env": re.compile(r"[A-Z][A-Z_]*_URL"),
    "url_form": re.compile(r"(redis|rediss|valkeys)://[A-Za-z0-9.:@/_-]+"),
    "plaintext_hosts": re.compile(r"([a-z0-9*.-]+(,[a-z0-9*.-]+)*)?"),
    "source": re.compile(r"[A-Za-z0-9 .,;/()#_-]{10,}"),
    "read_on": re.compile(r"20\d\d-\d\d-\d\d"),
}


def shape_problems(row):
    """Return which keys, types and values are not as the lists and patterns above say."""
    problems = [f"{key} is missing" for key in TYPES.keys() - row.keys()]
    problems += [f"{key} is unknown" for key in row.keys() - TYPES.keys()]
    for key in TYPES.keys() & row.keys():
        value = row[key]
        if type(value) not in TYPES[key]:  # isinstance() would take a bool for a number.
            problems.append(f"{key} has the type {type(value).__name__}")
        elif key in WORDS and value not in WORDS[key]:
            problems.append(f"{key} is {value!r}")
        elif key in PATTERNS and not PATTERNS[key].fullmatch(value):
            problems.append(f"{key} has the form {value!r}")
        elif type(value) is int and value < (0 if key == "idle_timeout_s" else 1):
            problems.append(f"{key} is {value}")
    return problems


def sense_problems(row):
    """Return what contradicts itself in a row of the right shape."""
    plain, targets = row["tls"] == "none", set(ANSWERS["deploy_target"])
    url = row["url_form"]
    host = url.partition("://")[2].rpartition("@")[2].partition(":")[0]
    rules = {
        "tls none goes with ca none": plain == (row["ca"] == "none"),
        "a plain row is verified once its URL is rediss://": not plain
        or (row["cert_reqs"] == "required" and row["check_hostname"]),
        "the scheme of url_form follows tls": plain == url.startswith("redis://"),
        "url_form names the port": row["port"] is None or f":{row['port']}" in url,
        "a public CA needs the host name check": row["ca"] != "system"
        or (row["cert_reqs"] == "required" and row["check_hostname"]),
        "only a self-signed certificate leaves no choice but none": (row["ca"] == "self_signed")
        == (row["cert_reqs"] == "none"),
        "an unverified certificate has no host name check": row["cert_reqs"] == "required"
        or not row["check_hostname"],
        "refused_commands names commands in capitals": all(
            re.fullmatch("[A-Z]+", word) for word in row["refused_commands"]
        ),
        "cluster mode has one database": not row["cluster_mode"] or row["databases"] == 1,
        "plaintext_hosts is for plain rows and matches url_form": not row["plaintext_hosts"]
        or (plain and any(fnmatch.fnmatch(host, p) for p in row["plaintext_hosts"].split(","))),
        # The service checks its connections every 25 s.
        "idle_timeout_s leaves room for two health checks": not row["idle_timeout_s"]
        or row["idle_timeout_s"] >= 50,
        "reachable_from holds deploy targets, in their order": bool(row["reachable_from"])
        and row["reachable_from"]
        == [t for t in ANSWERS["deploy_target"] if t in row["reachable_from"]],
        "network is given exactly when a target cannot reach it": bool(row["network"])
        == (set(row["reachable_from"]) != targets),
        "what render.yaml creates is reached from Render": not row["in_render_yaml"]
        or {"render", "render_services"} <= set(row["reachable_from"]),
        "believed names keys, each once": set(row["believed"]) < row.keys()
        and len(set(row["believed"])) == len(row["believed"]),
    }
    return [rule for rule, holds in rules.items() if not holds]


def question_problems(answers):
    """Return what does not fit: choices, rows and labels, or texts that a terminal would spoil."""
    problems, prompts = [], answers["__prompts__"]
    questions = [key for key in answers if not key.startswith("_")]
    if answers["redis_provider"] != list(answers["_redis_providers"]):
        problems.append("redis_provider and _redis_providers differ, or in order")
    if list(prompts) != questions:
        problems.append("__prompts__ does not have every question, in order")
    for key in questions:
        text = prompts.get(key, "")
        if isinstance(answers[key], list):
            labels = dict(text or {})
            question = labels.pop("__prompt__", "")
            if list(labels) != answers[key]:
                problems.append(f"{key}: the labels are not the choices, in order")
            if len(set(labels.values())) != len(labels):
                problems.append(f"{key}: two labels are equal")
        else:
            question, labels = text, {}
        problems += [f"{key}: no text" for words in (question, *labels.values()) if not words]
        shown = "\n".join((question, *labels.values()))
        problems += [f"{key}: square brackets are swallowed"] * bool(re.search(r"[\[\]]", shown))
        problems += [f"{key}: Jinja is not rendered here"] * bool(re.search(r"[{}]", shown))
        problems += [
            f"{key}: {len(line)} columns: {line}"
            for line in screen(answers, key, question, labels)
            if len(line) > WIDTH
        ]
    return problems


def screen(answers, key, question, labels):
    """Return the lines that cookiecutter 2.7 prints for one question, at their longest."""
    first, choices = f"  [1/5] {question}", answers[key]
    if isinstance(choices, str):
        default = "x" * 40 if "{{" in choices else choices
        return f"{first} ({default}): ".splitlines()
    numbers = "/".join(str(number) for number in range(1, len(choices) + 1))
    lines = [f"    {number} - {text}" for number, text in enumerate(labels.values(), 1)]
    return [*first.splitlines(), *lines, f"    Choose from [{numbers}] (1): "]


def branches(text, keys, others):
    """Return comparisons of the provider with a literal. A fact belongs in a row, not in an `if`.

    `keys` are the providers, `others` the words that are also answers to another question.
    """
    names = "|".join(sorted(keys - others))
    operator = r"(?:==|!=|(?:\bnot\s+)?\bin\b|\bis\b)"
    literal = r"[\[({]?\s*[\"']"
    patterns = [
        rf"redis_provider[\"'\])]*\s*{operator}\s*{literal}",
        rf"[\"']\s*{operator}\s*[\w.\[(\"']*redis_provider",
        r"redis_provider[\"'\])]*\.(?:startswith|endswith|find|count)\(",
        rf"{operator}\s*{literal}(?:{names})[\"']",
        rf"[\"'](?:{names})[\"']\s*{operator}\s*\w",
        rf"\bcase\s+[\"'](?:{names})[\"']",
        rf"_redis_providers(?:\.(?:{names})\b|\[\s*[\"'])",
    ]
    return [match[0] for pattern in patterns for match in re.finditer(pattern, text)]


def unproven(rows, left_out):
    """Return the rows that no live test runs, and that have no sentence that says why."""
    known = [key for key in left_out if key in rows]
    return [f"{key} is not a row" for key in left_out if key not in rows] + [
        f"{key} is not live-tested, for no reason" for key in known if len(left_out[key]) < 20
    ]


def changed(answers, **changes):
    """Return a deep copy with some top-level keys replaced."""
    assert changes.keys() <= answers.keys()
    return json.loads(json.dumps(answers | changes))


def test_the_promised_providers_are_there_in_order_of_use():
    promised = re.findall(
        r"\w+",
        """render render_public heroku upstash redis_cloud digitalocean aiven elasticache
        elasticache_serverless azure_managed azure_cache memorystore_redis memorystore_valkey
        fly railway scalingo dragonfly self_hosted other""",
    )
    assert [key for key in ROWS if key in promised] == promised


@pytest.mark.parametrize("key", ROWS)
def test_a_row_has_the_agreed_keys_types_and_values(key):
    assert shape_problems(ROWS[key]) == []
    assert list(ROWS[key]) == list(TYPES), "the keys of every row are in one order"


@pytest.mark.parametrize("key", ROWS)
def test_a_row_makes_sense(key):
    assert sense_problems(ROWS[key]) == []


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"port": "6379"}, "port has the type str"),
        ({"port": True}, "port has the type bool"),
        ({"port": 0}, "port is 0"),
        ({"databases": None}, "databases has the type NoneType"),
        ({"idle_timeout_s": -1}, "idle_timeout_s is -1"),
        ({"check_hostname": "true"}, "check_hostname has the type str"),
        ({"tls": "on"}, "tls is 'on'"),
        ({"ca": "letsencrypt"}, "ca is 'letsencrypt'"),
        ({"cert_reqs": "optional"}, "cert_reqs is 'optional'"),
        ({"eviction": "lru"}, "eviction is 'lru'"),
        ({"typo": 1}, "typo is unknown"),
        ({"source": ""}, "source has the form ''"),
        ({"read_on": "yesterday"}, "read_on has the form 'yesterday'"),
        ({"url_form": "http://host"}, "url_form has the form 'http://host'"),
        ({"url_env": "redis_url"}, "url_env has the form 'redis_url'"),
        ({"plaintext_hosts": "a b"}, "plaintext_hosts has the form 'a b'"),
    ],
)
def test_a_row_of_the_wrong_shape_is_noticed(change, problem):
    assert shape_problems(ROWS["upstash"] | change) == [problem]


def test_a_missing_key_is_noticed():
    row = {key: value for key, value in ROWS["upstash"].items() if key != "ca"}
    assert shape_problems(row) == ["ca is missing"]


@pytest.mark.parametrize("character", "\"'\\[]{}<>|`*%#;&$!\n\t\u00e9")
def test_notes_hold_nothing_that_a_file_would_need_to_escape(character):
    row = ROWS["upstash"] | {"notes": f"Take a fixed plan,{character} as commands are billed."}
    assert len(shape_problems(row)) == 1
    assert shape_problems(row | {"notes": row["notes"].replace(character, "")}) == []


@pytest.mark.parametrize(
    ("key", "change", "problem"),
    [
        ("render", {"ca": "system"}, "tls none goes with ca none"),
        ("upstash", {"ca": "none"}, "tls none goes with ca none"),
        ("render", {"check_hostname": False}, "a plain row is verified once its URL is rediss://"),
        ("render", {"cert_reqs": "none"}, "a plain row is verified once its URL is rediss://"),
        ("render", {"url_form": "rediss://red-ID:6379"}, "the scheme of url_form follows tls"),
        ("upstash", {"port": 6380}, "url_form names the port"),
        ("upstash", {"check_hostname": False}, "a public CA needs the host name check"),
        ("upstash", {"cert_reqs": "none"}, "a public CA needs the host name check"),
        (
            "self_hosted",
            {"cert_reqs": "none", "check_hostname": False},
            "only a self-signed certificate leaves no choice but none",
        ),
        (
            "heroku",
            {"cert_reqs": "required"},
            "only a self-signed certificate leaves no choice but none",
        ),
        ("heroku", {"check_hostname": True}, "an unverified certificate has no host name check"),
        ("elasticache_serverless", {"databases": 16}, "cluster mode has one database"),
        (
            "upstash",
            {"refused_commands": ["config"]},
            "refused_commands names commands in capitals",
        ),
        (
            "upstash",
            {"plaintext_hosts": "*.upstash.io"},
            "plaintext_hosts is for plain rows and matches url_form",
        ),
        (
            "fly",
            {"plaintext_hosts": "*.fly.dev"},
            "plaintext_hosts is for plain rows and matches url_form",
        ),
        ("scalingo", {"idle_timeout_s": 30}, "idle_timeout_s leaves room for two health checks"),
        ("fly", {"reachable_from": []}, "reachable_from holds deploy targets, in their order"),
        ("fly", {"reachable_from": ["fly"]}, "reachable_from holds deploy targets, in their order"),
        ("fly", {"network": ""}, "network is given exactly when a target cannot reach it"),
        ("upstash", {"network": "x"}, "network is given exactly when a target cannot reach it"),
        ("fly", {"in_render_yaml": True}, "what render.yaml creates is reached from Render"),
        ("fly", {"believed": ["prot"]}, "believed names keys, each once"),
        ("fly", {"believed": ["port", "port"]}, "believed names keys, each once"),
    ],
)
def test_a_row_that_contradicts_itself_is_noticed(key, change, problem):
    assert problem in sense_problems(ROWS[key] | change)


def test_render_yaml_creates_exactly_one_providers_redis():
    assert [key for key, row in ROWS.items() if row["in_render_yaml"]] == ["render"]


def test_the_defaults_come_first():
    first = {key: ANSWERS[key][0] for key in QUESTIONS if isinstance(ANSWERS[key], list)}
    assert first == {
        "redis_provider": "render",
        "cert_strictness": "recommended",
        "deploy_target": "render",
    }


def test_every_question_and_choice_has_a_label_that_fits_the_screen():
    assert question_problems(ANSWERS) == []


def test_there_is_room_for_as_many_rows_as_the_page_says():
    rooms = {
        number: len(screen({"redis_provider": ["key"] * number}, "redis_provider", "", {})[-1])
        for number in (20, 21)
    }
    assert rooms[20] <= WIDTH < rooms[21]
    page = (ROOT / "docs" / "adding-a-provider.md").read_text("utf-8")
    assert "There is room for 20 rows: with 21, " in page


@pytest.mark.parametrize(
    ("key", "choice", "label", "problem"),
    [
        ("redis_provider", "fly", None, "redis_provider: the labels are not the choices, in order"),
        (
            "redis_provider",
            "fli",
            "Fly",
            "redis_provider: the labels are not the choices, in order",
        ),
        ("deploy_target", "server", "", "deploy_target: no text"),
        ("deploy_target", "__prompt__", "", "deploy_target: no text"),
        ("deploy_target", "server", "Own [server]", "deploy_target: square brackets are swallowed"),
        ("deploy_target", "server", "{{ x }}", "deploy_target: Jinja is not rendered here"),
        ("deploy_target", "server", "x" * 69, f"deploy_target: 77 columns:     4 - {'x' * 69}"),
        (
            "deploy_target",
            "server",
            ANSWERS["__prompts__"]["deploy_target"]["render"],
            "two labels",
        ),
    ],
)
def test_a_bad_label_is_noticed(key, choice, label, problem):
    answers = changed(ANSWERS)
    labels = answers["__prompts__"][key]
    if label is None:
        del labels[choice]
    else:
        labels[choice] = label
    problems = question_problems(answers)
    assert len(problems) == 1
    assert problem in problems[0]


def test_a_text_question_leaves_room_for_its_default():
    prompts = ANSWERS["__prompts__"] | {"project_name": "x" * 60}
    assert [
        "project_name: 83 columns" in text
        for text in question_problems(changed(ANSWERS, __prompts__=prompts))
    ] == [True]


def test_a_choice_without_a_row_is_noticed():
    answers = changed(ANSWERS, redis_provider=[*ANSWERS["redis_provider"], "no_such_row"])
    assert "redis_provider and _redis_providers differ, or in order" in question_problems(answers)


def test_a_question_without_a_text_is_noticed():
    answers = changed(ANSWERS)
    del answers["__prompts__"]["project_slug"]
    assert question_problems(answers) == [
        "__prompts__ does not have every question, in order",
        "project_slug: no text",
    ]


@given(st.text(string.ascii_letters + string.digits + " _.-", max_size=60))
@example("")
@example("   ")
@example("2024")
@example("-_. 7 ._-")
@example("9 Lives")
@example("A" * 60)
@example("a" * 39 + " b")
def test_the_suggested_package_name_is_always_a_package_name(name):
    template = StrictEnvironment(context={"cookiecutter": {}}).from_string(ANSWERS["project_slug"])
    slug = template.render(cookiecutter={"project_name": name})
    assert re.fullmatch(r"[a-z][a-z0-9_]{0,39}", slug)


@pytest.mark.parametrize(
    ("name", "slug"),
    [("My Service", "my_service"), ("9 Lives", "lives"), ("Night-Owl.v2", "night_owl_v2")],
)
def test_the_suggested_package_name_is_taken_from_the_name(name, slug):
    template = StrictEnvironment(context={"cookiecutter": {}}).from_string(ANSWERS["project_slug"])
    assert template.render(cookiecutter={"project_name": name}) == slug


def test_no_file_of_the_template_branches_on_the_provider():
    files = [
        path
        for folder in ("{{cookiecutter.project_slug}}", "hooks")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]
    assert files
    others = set(itertools.chain(ANSWERS["deploy_target"], ANSWERS["cert_strictness"]))
    found = {
        str(path): seen
        for path in files
        if (seen := branches(f"{path}\n{path.read_text('utf-8', 'replace')}", set(ROWS), others))
    }
    assert found == {}


@pytest.mark.parametrize(
    "text",
    [
        "{% if cookiecutter.redis_provider == 'heroku' %}",
        '{% if "render" == cookiecutter.redis_provider %}',
        "{% if cookiecutter.redis_provider == 'render' %}render.yaml{% endif %}",
        "{% if cookiecutter.redis_provider in ('render', 'fly') %}",
        "{% if cookiecutter.redis_provider not in ['render'] %}",
        "{% if cookiecutter['redis_provider'] != 'render' %}",
        "{% if cookiecutter.redis_provider.startswith('render') %}",
        "{% if provider == 'heroku' %}",
        "if answers['redis_provider'] == \"heroku\":",
        "if 'upstash' in provider:",
        "    case 'upstash':",
        "{{ cookiecutter._redis_providers.heroku.port }}",
        "{{ cookiecutter._redis_providers['render'].port }}",
    ],
)
def test_a_branch_on_the_provider_is_noticed(text):
    assert branches(text, set(ROWS), {"render"}) != []


@pytest.mark.parametrize(
    "text",
    [
        "{% set redis = cookiecutter._redis_providers[cookiecutter.redis_provider] %}",
        "{% if cookiecutter.deploy_target == 'render' %}",
        "{% if cookiecutter._redis_providers[cookiecutter.redis_provider].ca == 'system' %}",
        "row = answers['_redis_providers'][answers['redis_provider']]",
        "if answers['redis_provider'] not in answers['_redis_providers']:",
    ],
)
def test_the_ways_to_read_a_row_are_no_branch(text):
    assert branches(text, set(ROWS), {"render"}) == []


def test_the_provider_page_is_current():
    assert providers_table.main(["--check"]) == 0, "run python3 -m script.providers_table"


def test_a_stale_provider_page_is_noticed_and_renewed(tmp_path, monkeypatch, capsys):
    page = tmp_path / "providers.md"
    current = providers_table.refreshed(providers_table.PAGE.read_text("utf-8"), ROWS)
    page.write_text(current.replace("2026-11-22", "2020-01-01"), "utf-8")
    monkeypatch.setattr(providers_table, "PAGE", page)
    assert providers_table.main(["--check"]) == 1
    assert "is stale: run python3 -m script.providers_table" in capsys.readouterr().err
    assert providers_table.main([]) == 0
    assert page.read_text("utf-8") == current


def test_a_provider_page_without_its_markers_is_refused():
    with pytest.raises(ValueError, match="must hold these two lines"):
        providers_table.refreshed("# Redis providers\n", ROWS)


@pytest.mark.parametrize("key", ROWS)
def test_the_page_has_a_line_in_each_table_and_a_note_for_every_provider(key):
    text = providers_table.generated(ROWS)
    assert text.count(f"\n| `{key}` |") == 3
    assert f"\n`{key}`, URL in `{ROWS[key]['url_env']}`." in text
    assert ROWS[key]["notes"] in text


def test_believed_values_carry_an_asterisk_on_the_page_and_read_ones_none():
    row = ROWS["upstash"] | {"believed": ["eviction"]}
    assert "| noeviction* |" in providers_table.generated({"upstash": row})
    assert "*" not in providers_table.generated({"upstash": row | {"believed": []}})


def test_every_row_is_live_tested_or_has_a_reason():
    assert unproven(ROWS, stand_ins.NOT_LIVE_TESTED) == []
    tested = {provider for provider, _ in stand_ins.journeys(ROWS).values()}
    assert tested | stand_ins.NOT_LIVE_TESTED.keys() == ROWS.keys()


def test_the_page_says_which_rows_are_live_tested_and_why_others_are_not():
    left_out = {"fly": "Nothing here speaks its private network."}
    cells = {key: providers_table.live_test(key, ROWS, left_out) for key in ROWS}
    assert cells.pop("fly") == "no: Nothing here speaks its private network."
    assert cells.pop("heroku") == "yes, as rendered and pinned"
    assert cells["upstash"] == "yes"
    assert "fly" not in stand_ins.journeys(ROWS, left_out)


@pytest.mark.parametrize(
    ("left_out", "problem"),
    [
        ({"upstash": ""}, "upstash is not live-tested, for no reason"),
        ({"upstash": "no"}, "upstash is not live-tested, for no reason"),
        ({"no_such_row": "There is no server to stand in for it."}, "no_such_row is not a row"),
    ],
)
def test_a_row_left_out_without_a_reason_is_noticed(left_out, problem):
    assert unproven(ROWS, left_out) == [problem]
