"""Hostile answers: each is refused with a better one, or baked exactly as it was given."""

import json
import re
import shutil
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from harness.answers import QUESTIONS, SERVICE, check_keys, each, resolved
from harness.bakes import HEAD, by_command, in_process, leftovers, reasons_of, spoil
from harness.cli import SECONDS, tree
from harness.stated import check_project

PLAIN = {"project_name": "My Service", "project_slug": "my_service"}
TAG = re.compile("{[{%#]")

# What a refusal says to do. A group holds the value to give instead.
EXAMPLE = re.compile(r"(project_name|project_slug) .*\. Answer for example '([^']+)'\.")
FOLDER = re.compile(r"(project_slug) .* cannot be the name of a folder: .*, for example (\w+)\.")
RUN = re.compile(r"(project_\w+) was given as .*, which cookiecutter has run as a .* plain text\.")
PAIR = re.compile(r"(cert_strictness) .* cannot work out of the box .*\. Answer (recommended)\. .*")


def instead(reasons, answers):
    """Return the answers that the reasons suggest. Raises AssertionError if one suggests none."""
    better = {}
    for reason in reasons:
        matches = (form.fullmatch(reason) for form in (EXAMPLE, FOLDER, RUN, PAIR))
        found = next(filter(None, matches), None)
        assert found, f"it does not say what to answer: {reason}"
        key, value = found[1], found[2] if found.re.groups == 2 else PLAIN[found[1]]
        assert key not in better, f"two sentences about {key}: {reasons}"
        better[key] = value
    return {**answers, **better}


@pytest.fixture
def home(home):
    """The account of a user who has a file of their own."""
    (home.work / "notes.txt").write_text("mine\n")
    return home


@pytest.fixture(scope="module")
def accepted():
    """The answers that were baked before, because the same suggestions come back often."""
    return set()


@pytest.fixture
def judge(home, template, post_gen, capfd, accepted):
    """judge(answers) -> Ended. Raises AssertionError if they are neither refused nor baked right.

    After a refusal the suggested answers are tried. `way` is in_process or by_command.
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
            if FOLDER.fullmatch(ended.reasons[0]):
                # This is said alone, before a folder is made. The hook says the rest.
                judge(better, template=template, way=way)
            elif (template, *sorted(better.items())) not in accepted:
                assert once(better, template, in_process).project, "refused again"
        return ended

    return judge


# From a list

NASTY = {
    "quote": "O'Brien",
    "double quote": 'say "hi"',
    "quotes of Python": "'''\"\"\"",
    "curly quotes": "\u201cO\u2019Brien\u201d",
    "backtick": "`id`",
    "backslash": "a\\b",
    "backslash last": "a\\",
    "escapes": "a\\x41\\n\\u0041",
    "newline": "a\nb",
    "newline last": "shop\n",
    "carriage return": "a\r\nb",
    "tab": "a\tb",
    "line separator": "a\u2028b",
    "next line": "a\x85b",
    "NUL": "a\0b",
    "terminal escape": "\x1b[2J\x1b[31mshop\x07",
    "end of RAW": "''' + __import__('os').system('touch ran') + r'''",
    "shell": "$(touch ran)",
    "shell variable": "${HOME}",
    "shell, two commands": "a; touch ran #",
    "format": "{project_name} %s %(x)s",
    "supervisor": "%(ENV_HOME)s",
    "toml": '"\n[tool.x]\ny = "',
    "ini": "a\n[program:x]\ncommand=touch ran",
    "yaml": "a: b",
    "yaml comment": "a # b",
    "yaml anchor": "&a *b !c",
    "markdown": "[x](javascript:alert(1))",
    "html": "<script>alert(1)</script>",
    "emoji": "\U0001f642",
    "family": "\U0001f468\u200d\U0001f469\u200d\U0001f467",
    "accents": "Caf\u00e9 Zo\u00eb",
    "combining": "Cafe\u0301",
    "sharp s": "Stra\u00dfe",
    "ligature": "\ufb01le",
    "cyrillic": "\u0441\u0435\u0440\u0432\u0438\u0441",
    "homoglyph": "s\u0435rvice",
    "full width": "\uff53\uff45\uff52\uff56\uff49\uff43\uff45",
    "chinese": "\u670d\u52a1",
    "arabic": "\u062e\u062f\u0645\u0629",
    "arabic digit": "a\u0663",
    "right-to-left override": "abc\u202efed",
    "zero width": "a\u200bb",
    "byte order mark": "\ufeffshop",
    "no-break space": "a\u00a0b",
    "private use": "\ue000",
    "a byte that is not text": "shop\udcff",
    "empty": "",
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
    "underscore last": "shop_",
    "underscores inside": "a__b",
    "only digits": "2024",
    "digit first": "9lives",
    "number": "e1",
    "version": "1.0",
    "null": "null",
    "no": "no",
    "36": "a" * 36,
    "41": "a" * 41,
    "60": "a" * 60,
    "61": "a" * 61,
    "300": "a" * 300,
    "300 of four bytes": "\U0001f642" * 300,
    "100 kB": "a" * 100_000,
    "words": "shop " * 60,
    "up": "../x",
    "up and up": "../../../x",
    "up from below": "x/../../y",
    "below": "a/b",
    "slash last": "shop/",
    "absolute": "ROOT/x",
    "absolute, two slashes": "/ROOT/x",
    "dots": "..",
    "dot": ".",
    "three dots": "...",
    "dot first": ".shop",
    "dot last": "shop.",
    "dotted": "my.shop",
    "home": "~",
    "file in the home": "~/x",
    "drive": "C:\\x",
    "drive, relative": "C:x",
    "share": "\\\\server\\share",
    "stream": "shop::$DATA",
    "upper case": "SHOP",
    "dashes": "my-shop",
    "keyword": "class",
    "keyword in upper case": "CLASS",
    "keyword None": "None",
    "soft keyword": "match",
    "soft keyword _": "_",
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
    "device": "con",
    "device in upper case": "NUL",
    "device with a number": "com1",
    "device with an ending": "aux.txt",
    "question": "project_name",
    "leftover": "cookiecutter.project_name",
    "package of no need": "yaml",
    "package of no need either": "hiredis",
    "a word of Python, accented": "j\u0135son",
    "a word of Python, after another": "\u670d json",
    "tags": "{{ 7*7 }}",
    "tags of a fact": "{{ cookiecutter._redis_providers }}",
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
    "include": "{% include '/etc/passwd' %}",
}
COMMANDS = ["quotes of Python", "newline", "a byte that is not text", "option", "absolute"]
COMMANDS += ["100 kB", "device in upper case", "tags", "comment without an end", "36"]


def value_of(nasty, home):
    return NASTY[nasty].replace("ROOT", str(home.home.parent))


@pytest.mark.parametrize("nasty", each(6, NASTY))
def test_as_name_and_package_it_is_refused_or_baked_as_it_is(judge, home, nasty):
    value = value_of(nasty, home)
    judge({"project_name": value, "project_slug": value, "deploy_target": "procfile"})


@pytest.mark.parametrize("nasty", each(6, list(NASTY)[::5]))
def test_a_name_makes_a_package_that_works(judge, home, nasty):
    judge({"project_name": value_of(nasty, home)})


@pytest.mark.parametrize("nasty", COMMANDS)
def test_on_the_command_line_it_is_the_same(judge, home, nasty):
    both = {"project_name": value_of(nasty, home), "project_slug": value_of(nasty, home)}
    answers = {**both, "redis_provider": "heroku", "cert_strictness": "required"}
    judge(answers, way=by_command)


def test_everything_wrong_is_said_at_once(judge):
    wrong = {"project_name": "O'Brien", "project_slug": "con", "cert_strictness": "required"}
    ended = judge({**wrong, "redis_provider": "heroku"}, way=by_command)
    assert [reason.split()[0] for reason in ended.reasons] == list(wrong)


@pytest.mark.parametrize("slug", ["a" * 40, "a"])
def test_the_longest_and_the_shortest_package_pass_the_projects_own_lint(baked, slug):
    project = baked(project_slug=slug).path
    for command in (["check"], ["format", "--check"]):
        ruff = [sys.executable, "-m", "ruff", *command, "--no-cache", "."]
        done = subprocess.run(ruff, cwd=project, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout


def test_half_of_a_surrogate_pair_is_no_file_name(home, template, capfd):
    """Only Python and JSON can hold half a pair; a command line cannot."""
    before = tree(home.home.parent)
    with pytest.raises(UnicodeEncodeError, match="surrogates not allowed"):
        in_process(home, template, {"project_slug": "\ud800"}, capfd)
    (home.home / "config.yaml").unlink()
    assert leftovers(before, tree(home.home.parent)) == []


# From hypothesis

CHARACTERS = [*"'\"`\\/\n\r\t\0\x1b {}%#$()<>&|;:*?~-_.@!=+,[]^aZ09", "\u202e", "\u200b", "\ufeff"]
CHARACTERS += [
    "\u2028",
    "\u00e9",
    "\u00df",
    "\u0441",
    "\uff53",
    "\ufb01",
    "\u670d",
    "\U0001f642",
    "\udcff",
]
PIECES = ["{{ 7*7 }}", "{{ 'x' }}", "{{", "}}", "{%", "%}", "{#", "#}", "{% raw %}", "{% endraw %}"]
PIECES += ["../", "..", ".", "/", "~", "C:", "\\", "class", "json", "celery", "con", "NUL", "nul"]
PIECES += ["my", "shop", "service", "9", "_", "-", " ", "Match", "$(touch ran)", "'''", "\n", "\0"]


def joined(parts, most):
    return st.lists(st.sampled_from(parts), max_size=most).map("".join)


hostile = joined(CHARACTERS, 12) | joined(PIECES, 5) | joined(CHARACTERS + PIECES, 80)


@settings(
    max_examples=40,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(name=hostile, slug=hostile)
@example(name="", slug="")
def test_any_two_texts_are_refused_or_baked_as_they_are(judge, name, slug):
    judge({"project_name": name, "project_slug": slug})


# Code in answers: cookiecutter renders all that is not typed, before a hook can look at it

TOUCH = "popen('touch ran').read() }}My Service"
CODE = {
    "cycler": "{{ cycler.__init__.__globals__.os." + TOUCH,
    "lipsum": "{{ lipsum.__globals__.os." + TOUCH,
    "namespace": "{{ namespace.__init__.__globals__.os." + TOUCH,
    "a statement": "{% set x = joiner.__init__.__globals__.os.system('touch ran') %}My Service",
}
RAN = re.compile(
    r"project_name was given as .*, which cookiecutter has run as a template\. "
    r"The result was 'My Service'\. Answer with plain text\."
)


@pytest.fixture
def ran(home):
    """ran() -> whether the code in an answer has run since the last call."""

    def ran():
        seen = (home.work / "ran").exists()
        (home.work / "ran").unlink(missing_ok=True)
        return seen

    return ran


@pytest.fixture
def untouched(home):
    """untouched() asserts that a run left nothing, untouched(slug) that it left a project alone."""
    before = tree(home.home.parent)

    def untouched(slug=None):
        assert leftovers(before, tree(home.home.parent), slug and f"work/{slug}") == []
        assert slug is None or (home.work / slug / "config" / "settings.py").is_file()

    return untouched


def typed(home, template, *lines, answers=None):
    """Run the real command and answer its questions, the remaining ones with Enter."""
    command = home.command(template, answers=answers)
    command.remove("--no-input")
    keys = "".join(f"{line}\n" for line in [*lines, *[""] * len(QUESTIONS)])
    return subprocess.run(
        command,
        cwd=home.work,
        env=home.env,
        input=keys,
        capture_output=True,
        text=True,
        timeout=SECONDS,
    )


@pytest.mark.parametrize("code", CODE)
def test_code_on_the_command_line_has_run_and_is_refused(home, template, ran, untouched, code):
    """Refused although its result is a good name, because nobody knows what else the code did."""
    done = home.cookiecutter(template, answers={"project_name": CODE[code]})
    assert ran(), "cookiecutter renders no answers any more: the README can say so"
    assert done.returncode == 1
    [reason] = reasons_of(done.stderr)
    assert RAN.fullmatch(reason)
    untouched()


def test_code_shown_as_a_default_has_run_and_is_refused(home, template, ran, untouched):
    done = typed(home, template, answers={"project_name": CODE["cycler"]})
    assert "Name (My Service)" in done.stdout
    assert ran()
    assert done.returncode == 1
    [reason] = reasons_of(done.stderr)
    assert RAN.fullmatch(reason)
    untouched()


def test_code_in_a_configuration_file_has_run_and_is_refused(home, template, ran):
    home.configure(default_context={"project_name": CODE["lipsum"]})
    before = tree(home.home.parent)
    done = home.cookiecutter(template)
    assert ran()
    assert done.returncode == 1
    [reason] = reasons_of(done.stderr)
    assert RAN.fullmatch(reason)
    assert leftovers(before, tree(home.home.parent)) == []


def test_code_in_a_derived_value_has_run_unseen(home, template, ran, untouched):
    """Cookiecutter does not show hooks how these were given, so a right result is accepted."""
    code = {"__cert_reqs": CODE["cycler"].replace("My Service", "required")}
    done = home.cookiecutter(template, private=code)
    assert ran()
    assert (done.returncode, done.stderr) == (0, "")
    untouched("my_service")


def test_code_through_cruft_has_run_unseen(home, template, tmp_path, ran):
    """Cruft does not show hooks what was given, so a plain result is accepted."""
    repository = home.repository(template, tmp_path / "template.git")
    answers = json.dumps({"project_name": CODE["cycler"]})
    done = home.cruft("create", "--no-input", "--extra-context", answers, repository)
    assert ran()
    assert done.returncode == 0, done.stderr
    heading = (home.work / "my_service" / "README.md").read_text().partition("\n")[0]
    assert heading == "# My Service"


@pytest.mark.parametrize("code", CODE)
def test_code_that_is_typed_never_runs(home, template, ran, untouched, code):
    # A name of over 60 characters cannot be a folder, which is said before the rest.
    slug = CODE["lipsum"].removesuffix("My Service")
    done = typed(home, template, CODE[code], slug)
    assert done.returncode == 1
    assert set(instead(reasons_of(done.stderr), {})) == {*PLAIN}
    assert not ran()
    untouched()


def test_code_that_is_replayed_never_runs(home, template, ran):
    replay = home.home / "replay.json"
    code = dict.fromkeys(["project_name", "project_slug"], CODE["lipsum"])
    replay.write_text(
        json.dumps({"cookiecutter": {**resolved(), **code, "__folder": [CODE["lipsum"]]}})
    )
    before = tree(home.home.parent)
    command = home.command(template, "--replay-file", str(replay))
    command.remove("--no-input")
    done = home.run(command)
    assert done.returncode == 1
    assert set(instead(reasons_of(done.stderr), {})) == {*PLAIN}
    assert not ran()
    assert "has run" not in done.stderr
    assert leftovers(before, tree(home.home.parent)) == []


@pytest.mark.parametrize(
    ("key", "last"),
    [
        ("redis_provider", "ValueError: .* provided for choice variable redis_provider, but .*"),
        ("_copy_without_render", "ValueError: .* for choice variable _copy_without_render, .*"),
        ("_jinja2_env_vars", "TypeError: .* must be a mapping, not str"),
        ("_redis_providers", "jinja2.exceptions.UndefinedError: .*"),
    ],
)
def test_code_as_a_choice_or_a_private_value_never_runs(home, template, ran, untouched, key, last):
    done = home.cookiecutter(template, private={key: CODE["cycler"]})
    assert done.returncode == 1
    assert re.fullmatch(last, done.stderr.splitlines()[-1])
    assert not ran()
    untouched()


def test_code_under_a_mistyped_key_never_runs(home, template, ran, untouched):
    done = home.cookiecutter(template, private={"projekt_name": CODE["cycler"]})
    assert (done.returncode, done.stderr) == (0, "")
    assert not ran()
    untouched("my_service")


# The oracle itself

NAME, SLUG = "cookiecutter.project_name", "cookiecutter.project_slug"
BAD_NAME, BAD_SLUG = {"project_name": "O'Brien"}, {"project_slug": "my-shop"}
SHOP = {"project_name": "my shop", "project_slug": "shop"}
REFUSING = "reported = report\ndef report(found):\n    "
ANYTHING = "def problems(*_):\n    return []"

# {what is wrong: (hook, code to put at its end, answers, what the oracle says)}
WRONG = {
    "a device is taken": ("pre_gen", ANYTHING, {"project_slug": "con"}, "con"),
    "a name that no package has is taken": ("pre_gen", ANYTHING, BAD_SLUG, "my-shop"),
    "upper case is taken": ("pre_gen", ANYTHING, {"project_slug": "Shop"}, "Shop"),
    "a name of two lines is taken": ("pre_gen", ANYTHING, {"project_name": "a\nb"}, "heading"),
    "a file is left beside the output": (
        "pre_gen",
        REFUSING + "open('../../debris', 'w').close()\n    return reported(found)",
        BAD_NAME,
        "debris",
    ),
    "a folder is left in the output": (
        "pre_gen",
        REFUSING + "os.mkdir('../debris')\n    return reported(found)",
        BAD_NAME,
        "work/debris",
    ),
    "the user's file is changed": (
        "pre_gen",
        REFUSING + "open('../notes.txt', 'a').write('x')\n    return reported(found)",
        BAD_NAME,
        "work/notes.txt",
    ),
    "the first problem only is told": (
        "pre_gen",
        REFUSING + "return reported(found[:1])",
        BAD_NAME | BAD_SLUG,
        "refused again",
    ),
    "a problem is told twice": (
        "pre_gen",
        REFUSING + "return reported(found * 2)",
        BAD_NAME,
        "two sentences about project_name",
    ),
    "what is suggested is refused": (
        "pre_gen",
        "def suggested_slug(slug):\n    return 'con'",
        BAD_SLUG,
        "refused again",
    ),
    "nothing is suggested": (
        "pre_gen",
        "def slug_problems(answers):\n    yield 'project_slug is wrong.'",
        BAD_SLUG,
        "it does not say what to answer",
    ),
    "no reason is given": ("pre_gen", REFUSING + "return 1", BAD_NAME, "no refusal"),
    "the reason is not a sentence": (
        "pre_gen",
        REFUSING + "return reported([text[:-1] for text in found])",
        BAD_NAME,
        "no sentence",
    ),
    "the value is printed as it is": (
        "pre_gen",
        "shown = str",
        {"project_name": "a\x1bb"},
        "no sentence",
    ),
    "it ends with a traceback of its own": (
        "pre_gen",
        "def problems(*_):\n    raise RuntimeError",
        BAD_NAME,
        "no refusal",
    ),
    "it refuses and goes on": (
        "pre_gen",
        REFUSING + "return reported(found) and 0",
        BAD_NAME,
        HEAD,
    ),
    "it refuses what is right": ("pre_gen", "NAME = re.compile('x')", SHOP, "refused again"),
    "the marker stays": ("post_gen", "MARKER = 'x'", SHOP, "INCOMPLETE.txt"),
    "the summary leaves one out": ("post_gen", "QUESTIONS = QUESTIONS[:4]", SHOP, "Answers"),
}
# {what is not the answer: (file of the service, old, new, answers)}
OTHER = {
    "heading": ("README.md", f"# {{{{ {NAME}", f"# {{{{ {NAME} | title", SHOP),
    "project": ("pyproject.toml", 'name = "{{', 'name = "x-{{', SHOP),
    "name": ("config/settings.py", f'"{{{{ {SLUG} }}}}"', '"x"', SHOP),
    "app": ("config/celery.py", f'Celery("{{{{ {SLUG} }}}}")', 'Celery("x")', SHOP),
    "settings": ("config/wsgi.py", "config.settings", "x.settings", SHOP),
    "modules": ("config/settings.py", '"config.urls"', '"x.urls"', SHOP),
    "commands": ("supervisord.conf", "-A config worker", "-A x worker", SHOP),
    "commands of the Procfile": (
        "*Procfile{*",
        "-A config beat",
        "-A x beat",
        SHOP | {"deploy_target": "procfile"},
    ),
    "render.yaml": ("*render.yaml*", "set name = slug", "set name = 'x' ~ slug", SHOP),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_the_oracle_sees_a_wrong_hook(judge, template, tmp_path, wrong):
    hook, code, answers, said = WRONG[wrong]
    with pytest.raises(AssertionError, match=re.escape(said)):
        judge(answers, template=spoil(template, tmp_path / "template", hook, code))


@pytest.mark.parametrize("other", OTHER)
def test_the_oracle_sees_another_value_in_a_file(judge, template, tmp_path, other):
    name, old, new, answers = OTHER[other]
    # The hook would see some of it, too.
    broken = spoil(template, tmp_path / "template", "post_gen", "CHECKS = ()")
    [path] = (broken / SERVICE.name).glob(name)
    text = path.read_text("utf-8")
    assert old in text, f"{name} does not say {old!r} any more"
    path.write_text(text.replace(old, new), "utf-8")
    with pytest.raises(AssertionError, match=other.split()[0]):
        judge(answers, template=broken)


def test_the_oracle_passes_what_is_right(judge):
    ended = judge(SHOP)
    assert (ended.reasons, ended.crash) == ((), "")
    assert judge(BAD_NAME | BAD_SLUG).reasons
    with pytest.raises(ValueError, match="projekt"):
        judge({"projekt_name": "x"})
