"""The questions as a newcomer meets them: the real command in a real terminal, answered by keys."""

import json
import re
import sys
from dataclasses import dataclass

import pytest

from harness.answers import CONTEXT, PROVIDERS, ROOT, ROWS, STRICTNESS
from harness.cli import Home, tree
from harness.terminal import CTRL_C, CTRL_D, ENTER, SCREENS, Terminal, check_screen

ORDER = ["project_name", "project_slug", "redis_provider", "cert_strictness", "deploy_target"]
STORED = {"defaults", "typed", "wrong_choices", "refused"}
WIDTH = 76
VERIFIED = "(?<!not )verified"
ENTERS = ("",) * len(ORDER)
NUMBERS = {key: str(number) for number, key in enumerate(PROVIDERS, 1)}
OWL = ("Night Owl", "owl_api", NUMBERS["upstash"], "2", "4")
OWL_ANSWERS = {
    "project_name": "Night Owl",
    "project_slug": "owl_api",
    "redis_provider": "upstash",
    "cert_strictness": "required",
    "deploy_target": "server",
}
TRACEBACK = "(What follows is cookiecutter's own traceback; the reasons are above.)"


@dataclass(frozen=True)
class Seen:
    """What a terminal showed during one run, and what the run left."""

    asked: list  # The rows up to the last answer.
    below: list  # The rows below the last answer.
    displays: list  # What was visible at each question.
    status: int
    left: dict

    @property
    def rows(self):
        return self.asked + self.below

    @property
    def reasons(self):
        """The rows before cookiecutter's traceback, which differs from machine to machine."""
        return self.below[: self.below.index(TRACEBACK) + 1]


def header(number):
    return f"[{number}/{len(ORDER)}]"


def command(template):
    return [sys.executable, "-m", "cookiecutter", str(template)]


@pytest.fixture(scope="module")
def run(template, tmp_path_factory):
    """Answer the questions in a home of its own: run(("My Shop", ...), columns=80) -> Seen.

    A list holds several tries. A text that ends in a control character is typed without Enter.
    """

    def run(answers=ENTERS, *, template=template, **size):
        home = Home(tmp_path_factory.mktemp("user") / "root")
        displays = []
        with Terminal(command(template), cwd=home.work, env=home.env, **size) as terminal:
            for number, tries in enumerate(answers, 1):
                for text in tries if isinstance(tries, list) else [tries]:
                    terminal.wait_for(header(number))
                    displays.append(terminal.display)
                    terminal.type(text if text.endswith((CTRL_C, CTRL_D)) else text + ENTER)
            status, end = terminal.end(), terminal.answered
        return Seen(
            terminal.rows[:end], terminal.rows[end:], displays, status, tree(home.home.parent)
        )

    return run


@pytest.fixture(scope="module")
def defaults(run):
    """A run that is answered by five times Enter."""
    return run()


def in_work(seen):
    """Return the files and folders in the output folder."""
    return {
        name.removeprefix("work/"): data
        for name, data in seen.left.items()
        if name.startswith("work/")
    }


def made(seen, slug):
    """{path: bytes} of the project's files."""
    return {
        name.removeprefix(f"{slug}/"): data
        for name, data in in_work(seen).items()
        if data is not None
    }


# From the first question to the last


def test_enter_alone_takes_the_defaults(defaults, baked):
    assert defaults.status == 0
    assert made(defaults, "my_service") == baked().files
    check_screen("defaults", defaults.rows)


def test_typed_answers_arrive(run, baked):
    seen = run(OWL)
    assert seen.status == 0
    assert made(seen, "owl_api") == baked(**OWL_ANSWERS).files
    check_screen("typed", seen.rows)


def test_spaces_round_an_answer_do_not_count(run, baked):
    seen = run([f"  {text} " for text in OWL])
    assert seen.status == 0
    assert made(seen, "owl_api") == baked(**OWL_ANSWERS).files


def test_a_wrong_choice_is_asked_again(run, baked):
    *texts, provider, strictness, target = OWL
    beyond = str(len(PROVIDERS) + 1)
    seen = run(
        [*texts, [beyond, "upstash", provider], ["0", "x", strictness], ["-1", "1 2", target]]
    )
    assert seen.status == 0
    assert made(seen, "owl_api") == baked(**OWL_ANSWERS).files
    check_screen("wrong_choices", seen.rows)


@pytest.mark.parametrize("key", [CTRL_C, CTRL_D], ids=["Ctrl-C", "Ctrl-D"])
@pytest.mark.parametrize("number", range(1, len(ORDER) + 1))
def test_a_question_can_be_left(run, defaults, number, key):
    seen = run((*ENTERS[: number - 1], key))
    assert seen.status == 1
    assert seen.below == ["Aborted!"]
    # The prompt's row also holds what the terminal shows for the key.
    assert seen.asked[:-1] == defaults.asked[: len(seen.asked) - 1]
    assert seen.asked[-1].startswith(defaults.asked[len(seen.asked) - 1])
    assert seen.left == dict.fromkeys(["home", "tmp", "work"])


def test_refused_answers_are_refused_all_at_once(run):
    seen = run(("O'Brien", "con", NUMBERS["heroku"], "2", ""))
    assert seen.status == 1
    assert in_work(seen) == {}
    check_screen("refused", seen.reasons)


def test_template_tags_are_shown_and_not_rendered(run):
    seen = run(("{{ 7*7 }}", "{{ 7*7 }}", "", "", ""))
    assert seen.status == 1
    assert in_work(seen) == {}
    shown = "\n".join(seen.asked + seen.reasons)
    assert "project_name '{{ 7*7 }}' " in shown
    assert "project_slug '{{ 7*7 }}' " in shown
    assert "49" not in shown


@pytest.mark.parametrize("answers", [("   ", *ENTERS[1:]), ("", "   ")])
def test_nothing_comes_of_spaces_alone(run, answers):
    seen = run(answers)
    assert seen.status == 1
    assert in_work(seen) == {}


# The rules of the wording


def problems(context, rows):
    """Yield what is wrong with the words in `context`, or with the rows shown for them."""
    questions = [key for key in context if not key.startswith("_")]
    if questions != ORDER:
        yield "the questions are not in the agreed order"
    for number, key in enumerate(questions, 1):
        choices = context[key] if isinstance(context[key], list) else []
        words = context["__prompts__"].get(key, "")
        labels = words if choices else {"__prompt__": words}
        question = labels.get("__prompt__", "")
        if not question:
            yield f"{key} has no text"
        yield from (f"{key}: {choice} has no label" for choice in choices if choice not in labels)
        expected = f"  {header(number)} {question}".splitlines() + [
            f"    {place} - {labels.get(choice, '')}" for place, choice in enumerate(choices, 1)
        ]
        yield from (
            f"{key}: not shown as it is written: {line}"
            for line in expected
            if not any(row.startswith(line) for row in rows)
        )
        if set("[]") & set("".join(labels.values())):
            yield f"{key}: square brackets"
    yield from (f"{len(row)} columns: {row}" for row in rows if len(row) > WIDTH)
    recommended = [row for row in rows if "recommended" in row.lower()]
    if len(recommended) != 1 or not recommended[0].startswith("    1 - "):
        yield f"called recommended: {recommended}"


def whole(display, number):
    """Return whether the question that waits for an answer is visible from its first row on."""
    return any(row.startswith(f"  {header(number)} ") for row in display)


def claims_of(row):
    """Return {pattern of a claim that labels make: whether the label of this row must make it}."""
    verified = row["tls"] != "none" and row["cert_reqs"] == "required"
    return {
        "plain redis://": row["tls"] == "none",
        "TLS": row["tls"] != "none",
        VERIFIED: verified and row["check_hostname"],
        "pinned": verified and not row["check_hostname"],
        "not verified": row["cert_reqs"] == "none",
        "(by|to) (its|your own) CA": row["ca"] in ("provider_file", "own"),
        "billed per command": row["billed_per_command"],
        "in your VPC": "VPC" in row["network"],
        "render.yaml": row["in_render_yaml"],
    }


def false_claims(label, row):
    """Return what a provider's label claims or omits contrary to its row of facts."""
    claims = claims_of(row).items()
    return [claim for claim, holds in claims if bool(re.search(claim, label)) != holds]


def test_the_words_follow_the_rules_as_shown(defaults):
    assert list(problems(CONTEXT, defaults.asked)) == []


def test_bad_words_are_noticed(run, tmp_path):
    """The real command shows one fault of each kind."""
    order = [*ORDER[:2], *ORDER[3:], ORDER[2]]
    context = json.loads(json.dumps({key: CONTEXT[key] for key in [*order, "__prompts__"]}))
    words = context["__prompts__"]
    del words["project_slug"], words["deploy_target"]["server"]
    words["deploy_target"]["procfile"] = "A host with [a] Procfile"
    words["cert_strictness"]["required"] = "Required, recommended"
    words["cert_strictness"]["none"] = "x" * 69
    words["redis_provider"]["aiven"] = "Aiven " * 14
    aiven = NUMBERS["aiven"]
    (tmp_path / "cookiecutter.json").write_text(json.dumps(context))
    (tmp_path / "{{cookiecutter.project_slug}}").mkdir()
    shown = run((*ENTERS[1:], CTRL_C), template=tmp_path).asked
    assert list(problems(context, shown)) == [
        "the questions are not in the agreed order",
        "project_slug has no text",
        "deploy_target: server has no label",
        "deploy_target: not shown as it is written:     3 - A host with [a] Procfile",
        "deploy_target: square brackets",
        f"redis_provider: not shown as it is written:     {aiven} - {'Aiven ' * 14}",
        f"77 columns:     4 - {'x' * 69}",
        f"79 columns:     {aiven} -{' Aiven' * 12}",
        "called recommended: ['    1 - Recommended   as Required; for Heroku as None, until you "
        "pin it', '    2 - Required, recommended']",
    ]


def test_every_question_is_whole_on_24_rows(defaults):
    assert [whole(display, n) for n, display in enumerate(defaults.displays, 1)] == [True] * 5
    assert {len(display) for display in defaults.displays} == {24}


def test_a_question_that_is_too_long_for_the_terminal_is_noticed(run):
    displays = run(("", "", CTRL_C), rows=20).displays
    assert [whole(display, n) for n, display in enumerate(displays, 1)] == [True, True, False]


@pytest.mark.parametrize("columns", [WIDTH, 200])
def test_no_row_is_broken_by_the_terminal(run, defaults, columns):
    assert run(columns=columns).rows == defaults.rows


def test_the_longest_suggestion_fits_into_its_row(run):
    rows = run(("Z" * 60, CTRL_C)).displays[-1]
    prompt = next(row for row in rows if row.endswith(f" ({'z' * 40}):"))
    assert len(prompt) <= WIDTH


@pytest.mark.parametrize("key", PROVIDERS)
def test_a_label_claims_what_the_facts_say(key):
    false = false_claims(CONTEXT["__prompts__"]["redis_provider"][key], ROWS[key])
    assert false == [], "docs/adding-a-provider.md has the words of a label"


@pytest.mark.parametrize(
    ("key", "label", "claims"),
    [
        ("render", "TLS, verified, by render.yaml", ["plain redis://", "TLS", VERIFIED]),
        ("heroku", "TLS, verified", [VERIFIED, "not verified"]),
        ("memorystore_redis", "TLS, verified by its CA, in your VPC", [VERIFIED, "pinned"]),
        ("self_hosted", "TLS, verified", ["(by|to) (its|your own) CA"]),
        ("upstash", "TLS, verified", ["billed per command"]),
        ("aiven", "TLS, verified, billed per command", ["billed per command"]),
        ("elasticache", "TLS, verified", ["in your VPC"]),
        ("other", "TLS, verified, by render.yaml", ["render.yaml"]),
    ],
)
def test_a_false_claim_is_noticed(key, label, claims):
    assert false_claims(label, ROWS[key]) == claims


def test_the_page_has_the_words_of_a_label():
    _, _, after = (ROOT / "docs/adding-a-provider.md").read_text("utf-8").partition("| Words |")
    words = [line.split("|")[1].strip(" `") for line in after.splitlines()[2:11]]
    claims = list(claims_of(ROWS["upstash"]))
    found = [[claim for claim in claims if re.search(claim, text)] for text in words]
    assert found == [[claim] for claim in claims]


def test_heroku_alone_is_not_verified_as_the_question_says():
    assert [key for key in PROVIDERS if ROWS[key]["cert_reqs"] == "none"] == ["heroku"]
    labels = CONTEXT["__prompts__"]["cert_strictness"]
    assert [key for key in STRICTNESS if "Heroku" in labels[key]] == ["recommended", "required"]


# The terminal and the stored screens themselves


def test_a_command_that_ends_early_is_noticed(tmp_path):
    script = "import sys; print(sys.stdout.isatty()); sys.exit(7)"
    with Terminal([sys.executable, "-c", script], cwd=tmp_path, env={}) as terminal:
        with pytest.raises(AssertionError, match="ended before it asked 'More'.*\nTrue"):
            terminal.wait_for("More")
        assert terminal.end() == 7


def test_a_question_counts_once_it_waits_for_the_answer(tmp_path):
    """A question that was answered, or is not complete yet, is not asked."""
    script = "print('One?'); input('(a): '); print('Two?'); print('(b): ', end=''); print(input())"
    with Terminal([sys.executable, "-c", script], cwd=tmp_path, env={}) as terminal:
        terminal.wait_for("One?")
        terminal.type(f"x{ENTER}")
        terminal.wait_for("(b)")
        assert terminal.rows == ["One?", "(a): x", "Two?", "(b):"]
        terminal.type(f"Three?{ENTER}")
        with pytest.raises(AssertionError, match="ended before it asked 'One"):
            terminal.wait_for("One?")


def test_rows_that_were_scrolled_away_are_kept(tmp_path):
    script = "print(*range(99), sep='\\n')"
    with Terminal([sys.executable, "-c", script], cwd=tmp_path, env={}) as terminal:
        assert terminal.end() == 0
        assert terminal.rows == [str(number) for number in range(99)]
        assert terminal.display == [*map(str, range(76, 99)), ""]


def test_a_changed_screen_is_noticed_and_renewed(tmp_path, monkeypatch):
    monkeypatch.delenv("SCREENS", raising=False)
    with pytest.raises(
        AssertionError, match="SCREENS=write ./script/test tests/bake/test_prompts.py"
    ):
        check_screen("new", ["one", "two"], tmp_path)
    monkeypatch.setenv("SCREENS", "write")
    check_screen("new", ["one", "two"], tmp_path)
    monkeypatch.setenv("SCREENS", "compare")
    check_screen("new", ["one", "two"], tmp_path)
    with pytest.raises(AssertionError, match="\n-two\n\\+three\n"):
        check_screen("new", ["one", "three"], tmp_path)
    monkeypatch.setenv("SCREENS", "renew")
    with pytest.raises(ValueError, match="not one of: compare, write"):
        check_screen("new", ["one", "two"], tmp_path)


def test_every_stored_screen_is_compared():
    assert {path.name for path in SCREENS.iterdir()} == {f"{name}.txt" for name in STORED}
