"""hooks/pre_gen_project.py: as plain Python, and through real bakes."""

import ast
import copy
import re
import subprocess
import sys

import pytest
from cookiecutter.exceptions import FailedHookException
from hypothesis import given
from hypothesis import strategies as st

from harness.answers import (
    CONTEXT,
    PRODUCT,
    QUESTIONS,
    ROOT,
    STRICTNESS,
    TARGETS,
    refused,
    resolved,
    row_id,
)

PRIVATE = [key for key in CONTEXT if key.startswith("_") and not key.startswith("__")]


def test_the_defaults_are_accepted(pre_gen):
    assert pre_gen.problems(resolved()) == []


@pytest.mark.parametrize("answers", PRODUCT, ids=row_id)
def test_exactly_the_pairs_the_facts_rule_out_are_refused(pre_gen, answers):
    found = pre_gen.problems(resolved(**answers))
    assert len(found) == refused(answers), found


@pytest.mark.parametrize("strictness", ["required", "optional"])
def test_a_refused_pair_says_why_and_what_to_answer(pre_gen, strictness):
    [text] = pre_gen.problems(resolved(redis_provider="heroku", cert_strictness=strictness))
    assert f"cert_strictness '{strictness}' cannot work" in text
    assert "Heroku" in text
    assert "no known authority signs" in text
    assert "Answer recommended. Then set REDIS_CERT_REQS=required in the environment" in text
    assert "REDIS_CA_CERTS to what `manage.py doctor --certificate` prints" in text


@pytest.mark.parametrize(
    "name", ["My Service", "a", "1", "2024", "a.b-c_d", "A" * 60, "Null", "1.0", "x -"]
)
def test_a_plain_project_name_is_accepted(pre_gen, name):
    assert pre_gen.problems(resolved(project_name=name, project_slug="service")) == []


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("", id="empty"),
        pytest.param(" a", id="space first"),
        pytest.param("a ", id="space last"),
        pytest.param("-a", id="dash first"),
        pytest.param("A" * 61, id="61 long"),
        pytest.param("O'Brien", id="quote"),
        pytest.param('say "hi"', id="double quote"),
        pytest.param("a\\", id="backslash"),
        pytest.param("a\n", id="newline last"),
        pytest.param("a\tb", id="tab"),
        pytest.param("a: b", id="colon"),
        pytest.param("a # b", id="comment"),
        pytest.param("<b>", id="html"),
        pytest.param("Café", id="accent"),
        pytest.param("服务", id="chinese"),
        pytest.param("٣", id="digit that is not ASCII"),
        pytest.param("🙂", id="emoji"),
        pytest.param("'''", id="end of RAW"),
    ],
)
def test_a_project_name_that_would_need_escaping_is_refused(pre_gen, name):
    [text] = pre_gen.problems({**resolved(), "project_name": name})
    assert text.startswith(f"project_name {name!r} is not a name that every file can hold ")


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("O'Brien", "OBrien"),
        ("Café Zoë", "Cafe Zoe"),
        ("Müller", "Muller"),
        ("Über Café's", "Uber Cafes"),
        ("服务 json", "json"),
        ("服务 con", "con Service"),
        ("服务", "My Service"),
        ("  ", "My Service"),
        ("-rf", "rf"),
        ("x" * 300, "x" * 60),
        ("x" * 59 + " y", "x" * 59),
    ],
)
def test_a_refused_project_name_comes_with_another(pre_gen, name, instead):
    [text] = pre_gen.name_problems({"project_name": name})
    assert text.endswith(f". Answer for example {instead!r}.")


@given(st.text())
def test_a_suggested_name_is_always_accepted(pre_gen, name):
    for text in pre_gen.name_problems({"project_name": name}):
        instead = text.split("Answer for example '")[-1].removesuffix("'.")
        assert pre_gen.NAME.fullmatch(instead)


@pytest.mark.parametrize(
    "slug",
    ["a", "my_service", "a" * 40, "match", "true", "null", "e1", "x__y", "class", "json", "celery"]
    + ["operations", "config", "security", "yaml"],
)
def test_a_plain_slug_is_accepted(pre_gen, slug):
    assert pre_gen.problems(resolved(project_slug=slug)) == []


@pytest.mark.parametrize(
    ("slug", "reason", "instead"),
    [
        ("", "not a plain name", "my_service"),
        ("_", "not a plain name", "my_service"),
        ("shop_", "not a plain name", "shop"),
        ("Müller", "not a plain name", "muller"),
        ("ｓｈｏｐ", "not a plain name", "shop"),
        ("9lives", "not a plain name", "lives"),
        ("_private", "not a plain name", "private"),
        ("My-Service", "not a plain name", "my_service"),
        ("my service", "not a plain name", "my_service"),
        ("a\n", "not a plain name", "a"),
        ("a" * 41, "not a plain name", "a" * 40),
        ("../up", "not a plain name", "up"),
        ("Class", "not a plain name", "class"),
        ("CON", "not a plain name", "con_service"),
        ("класс", "not a plain name", "my_service"),
        ("con", "device on Windows", "con_service"),
        ("lpt1", "device on Windows", "lpt1_service"),
    ],
)
def test_a_slug_that_cannot_work_is_refused_with_another(pre_gen, slug, reason, instead):
    [text] = pre_gen.problems({**resolved(), "project_slug": slug, "__folder": [slug]})
    assert text.startswith(f"project_slug {slug!r} ")
    assert reason in text
    assert text.endswith(f". Answer for example {instead!r}.")


@given(st.text())
def test_a_suggested_slug_is_always_accepted(pre_gen, slug):
    instead = pre_gen.suggested_slug(slug)
    assert pre_gen.SLUG.fullmatch(instead)
    assert instead not in pre_gen.DEVICES


def test_every_device_has_an_accepted_suggestion(pre_gen):
    assert len(pre_gen.DEVICES) == 24
    for slug in pre_gen.DEVICES:
        instead = pre_gen.suggested_slug(slug)
        assert pre_gen.SLUG.fullmatch(instead), slug
        assert instead not in pre_gen.DEVICES, slug


def test_all_problems_are_told_at_once(pre_gen):
    answers = resolved(
        project_name="O'Brien",
        project_slug="con",
        redis_provider="heroku",
        cert_strictness="required",
    )
    answers["__databases"] = "1"
    starts = [text.split()[0] for text in pre_gen.problems(answers)]
    assert starts == ["project_name", "project_slug", "cert_strictness", "__databases"]


@pytest.mark.parametrize("key", [k for k in CONTEXT if k.startswith("__") and k != "__prompts__"])
def test_a_derived_value_given_by_hand_is_refused(pre_gen, key):
    [text] = pre_gen.problems(resolved() | {key: "none of these"})
    assert text.startswith(f"{key} is 'none of these', but ")
    assert text.endswith("leave it out.")
    answers = resolved()
    del answers[key]
    [text] = pre_gen.problems(answers)
    assert text.startswith(f"{key} is None, but ")


def test_the_hook_knows_every_derived_value_and_choice(pre_gen):
    derived = {key for key in CONTEXT if key.startswith("__")} - {"__prompts__"}
    answers = resolved()
    row = answers["_redis_providers"][answers["redis_provider"]]
    assert set(pre_gen.derived(answers, row)) == derived
    assert list(pre_gen.STRICTNESS) == STRICTNESS
    assert list(pre_gen.TARGETS) == TARGETS


@pytest.mark.parametrize("key", PRIVATE)
def test_a_private_value_that_is_not_the_templates_is_refused(pre_gen, key):
    answers = copy.deepcopy(resolved())
    for changed in ({"another": {}}, None, "zzz"):
        [text] = pre_gen.problems({**answers, key: changed}, own=CONTEXT)
        assert text.startswith(f"{key} is not as in this template: leave it out of ")
    del answers[key]
    assert len(pre_gen.problems(answers, own=CONTEXT)) == 1


def test_only_other_facts_keep_the_pair_from_being_judged(pre_gen):
    answers = resolved(redis_provider="heroku", cert_strictness="required")
    first, second = pre_gen.problems({**answers, "_copy_without_render": []}, own=CONTEXT)
    assert first.startswith("_copy_without_render is not as in this template")
    assert second.startswith("cert_strictness 'required' cannot work")
    [text] = pre_gen.problems({**answers, "_redis_providers": {}}, own=CONTEXT)
    assert text.startswith("_redis_providers is not as in this template")


def test_a_fact_that_was_changed_is_noticed(pre_gen):
    answers = copy.deepcopy(resolved())
    answers["_redis_providers"]["upstash"]["cert_reqs"] = "none"
    [text] = pre_gen.problems(answers, own=CONTEXT)
    assert text.startswith("_redis_providers is not as in this template")


@pytest.mark.parametrize("key", ["_new_lines", "_extensions", "_facts_version", "redis_tier"])
def test_a_value_that_this_template_does_not_have_is_refused(pre_gen, key):
    [text] = pre_gen.problems({**resolved(), key: "x"}, own=CONTEXT)
    assert text.startswith(f"{key} is not as in this template")
    assert text.endswith("and do not --replay the answers to another release.")


def test_facts_are_not_compared_where_cookiecutter_json_is_not_found(pre_gen):
    answers = copy.deepcopy(resolved())
    answers["_redis_providers"]["render"]["databases"] = 4
    answers["__databases"] = "4"
    assert pre_gen.problems(answers) == []


def test_a_derived_value_that_this_template_does_not_have_is_refused(pre_gen):
    [text] = pre_gen.problems({**resolved(), "__tier": "x"})
    assert (
        text
        == "__tier is 'x', but it follows from the other answers and must be None: leave it out."
    )


def test_what_cookiecutter_adds_is_known(pre_gen):
    added = dict.fromkeys(pre_gen.COOKIECUTTERS_OWN, "x")
    assert pre_gen.problems({**resolved(), **added}, own=CONTEXT) == []


@pytest.mark.parametrize("key", QUESTIONS)
@pytest.mark.parametrize("value", [None, 7, True, [], ["upstash"], {}])
def test_an_answer_that_is_no_text_is_refused(pre_gen, key, value):
    answers = {**resolved(), key: value}
    [text] = pre_gen.problems({**answers, "__folder": [str(answers["project_slug"])]})
    assert text == f"{key} is {value!r}, which is not text: answer with a string."


@pytest.mark.parametrize("before", [7, 1.10, True, None, ["shop"], ["{{ 7*7 }}"]])
@pytest.mark.parametrize("key", ["project_name", "project_slug"])
def test_an_answer_that_was_no_text_before_it_was_rendered_is_refused(pre_gen, key, before):
    value = "49" if before == ["{{ 7*7 }}"] else "shop" if before == ["shop"] else str(before)
    answers = resolved() | {key: value}
    [text] = pre_gen.text_problems(answers, {key: before}, CONTEXT)
    assert text == (key, f"{key} is {before!r}, which is not text: answer with a string.")


def test_a_number_in_a_configuration_file_can_be_typed_over(pre_gen):
    assert pre_gen.problems(resolved(project_name="Shop"), {"project_name": 7}) == []


def test_what_was_replayed_has_not_run(pre_gen):
    answers = resolved() | {"project_name": "{{ 7*7 }}"}
    [text] = pre_gen.problems(answers, answers)
    assert text.startswith("project_name '{{ 7*7 }}' is not a name that every file can hold ")


def test_a_key_that_is_no_word_is_shown_as_python_writes_it(pre_gen):
    texts = pre_gen.problems(resolved() | {"a\x1b[31m\nb": "x", "__a\n": "y"}, own=CONTEXT)
    assert [text.split(" is ")[0] for text in texts] == ["'a\\x1b[31m\\nb'", "'__a\\n'"]


def test_an_answer_that_is_missing_is_refused(pre_gen):
    answers = resolved()
    del answers["project_name"]
    [text] = pre_gen.problems(answers)
    assert text.startswith("project_name is None, which is not text")


@pytest.mark.parametrize("tags", ["{{ 7*7 }}", "{% raw %}x{% endraw %}", "a{# b #}", "{{"])
@pytest.mark.parametrize("key", ["project_name", "project_slug"])
def test_an_answer_that_was_run_as_a_template_is_refused(pre_gen, key, tags):
    answers = resolved(**{key: "shop"})
    [text] = pre_gen.problems(answers, {**answers, key: tags}, own=CONTEXT)
    assert text.startswith(f"{key} was given as {tags!r}, which cookiecutter has run as a template")
    assert text.endswith("The result was 'shop'. Answer with plain text.")
    answers |= {"cert_strictness": "strict", "project_name": "O'Brien", "project_slug": "con"}
    starts = [
        text.split()[:2] for text in pre_gen.problems(answers, {**answers, key: tags}, own=CONTEXT)
    ]
    assert [key, "was"] in starts
    assert len(starts) == 3


def test_the_default_slug_is_the_one_template_that_may_run(pre_gen):
    given = {key: CONTEXT[key] for key in QUESTIONS}
    assert pre_gen.TAG.search(given["project_slug"])
    assert pre_gen.problems(resolved(), given, own=CONTEXT) == []
    given["project_slug"] += " "
    assert len(pre_gen.problems(resolved(), given, own=CONTEXT)) == 1


def test_where_the_default_slug_is_not_known_only_the_name_may_not_run(pre_gen):
    given = {key: CONTEXT[key] for key in QUESTIONS}
    assert pre_gen.problems(resolved(), given) == []
    [text] = pre_gen.problems(resolved(), given | {"project_name": "{{ 'My Service' }}"})
    assert text.startswith("project_name was given as ")


def test_a_long_value_is_cut_to_what_a_line_can_hold(pre_gen):
    [text] = pre_gen.problems({**resolved(), "project_name": "x" * 1000 + "!"})
    assert text.startswith(f"project_name '{'x' * 59}...' is not ")
    assert len(text) < 400


# The folder


def test_an_empty_folder_and_one_with_other_files_are_taken(pre_gen, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (".git", "LICENSE", "notes"):
        (tmp_path / name).mkdir()
    assert pre_gen.present() == []
    assert pre_gen.problems(resolved(), {}, []) == []


def test_what_the_project_would_write_is_seen(pre_gen, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "README.md").write_text("mine\n")
    (tmp_path / "templates").mkdir()
    (tmp_path / "manage.py").symlink_to("nowhere")
    (tmp_path / "config").mkdir()
    (tmp_path / "my_service").mkdir()
    assert pre_gen.present() == ["README.md", "config", "manage.py", "templates"]


def test_a_folder_with_files_in_the_way_is_refused(pre_gen):
    [text] = pre_gen.problems(resolved(), {}, ["README.md", "tests"])
    assert text.startswith("The folder 'my_service' already holds README.md, tests, which would be")
    [text] = pre_gen.problems(resolved(), {}, list("abcde"))
    assert "already holds a, b, c and 2 more, which" in text
    assert text.endswith("To renew a project of this template, run `cruft update`.")


def test_a_folder_that_an_earlier_run_left_is_refused(pre_gen):
    [text] = pre_gen.problems(resolved(), {}, ["README.md", "INCOMPLETE.txt"])
    assert text == (
        "The folder 'my_service' already holds INCOMPLETE.txt, because an earlier run did not "
        "finish there. Delete the folder, or everything in it that is not your own, and run again."
    )


def test_the_marker_says_what_to_do(pre_gen, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert pre_gen.write_marker() == 0
    text = (tmp_path / "INCOMPLETE.txt").read_text()
    assert text.startswith("Cookiecutter has not finished this project")
    assert "Delete this folder" in text
    assert pre_gen.write_marker() == 1  # The marker is there already.
    assert "No file can be written into" in capsys.readouterr().err


def test_both_hooks_know_every_name_at_the_top_of_a_project(pre_gen, post_gen, baked):
    tops = {name.split("/")[0] for target in TARGETS for name in baked(deploy_target=target).files}
    assert set(pre_gen.WRITTEN.split()) == tops - {"my_service"}
    assert (post_gen.WRITTEN, post_gen.MARKER) == (pre_gen.WRITTEN, pre_gen.MARKER)
    assert tuple(QUESTIONS) == pre_gen.QUESTIONS == post_gen.QUESTIONS


@pytest.mark.parametrize("key", ["redis_provider", "cert_strictness", "deploy_target"])
def test_an_unknown_choice_is_refused_with_the_known_ones(pre_gen, key):
    [text] = pre_gen.problems({**resolved(), key: "elsewhere"})
    assert text.startswith(f"{key} 'elsewhere' is not known: answer one of ")
    assert all(choice in text for choice in CONTEXT[key])


def test_a_good_report_is_silent_and_a_bad_one_explains_the_traceback(pre_gen, capsys):
    assert pre_gen.report([]) == 0
    assert capsys.readouterr() == ("", "")
    assert pre_gen.report(["One.", "Two."]) == 1
    assert capsys.readouterr() == (
        "",
        "Nothing was generated, because:\n  - One.\n  - Two.\n"
        "(What follows is cookiecutter's own traceback; the reasons are above.)\n",
    )


@pytest.mark.parametrize("name", ["pre_gen_project.py", "post_gen_project.py"])
def test_a_hook_is_python_of_3_10_of_which_jinja_sees_the_end_only(name):
    """What stands between raw and endraw may begin with any character, for any option of Jinja."""
    text = (ROOT / "hooks" / name).read_text("utf-8")
    ast.parse(text, feature_version=(3, 10))
    head, raw, rest = text.partition("{% raw %}")
    _, endraw, tail = rest.partition("{% endraw %}")
    assert raw and endraw
    assert not re.search(r"^\s*#|{[{%#]", head, re.MULTILINE)
    assert not re.search(r"^\s*#", tail, re.MULTILINE)
    rendered = ["{{ cookiecutter | tojson }}", "{{ _cookiecutter | default({}) | tojson }}"]
    assert re.findall("{[{%#].*?[}%#]}+", tail.replace("({})", "(NOTHING)")) == [
        line.replace("({})", "(NOTHING)") for line in rendered[: 1 + name.startswith("pre")]
    ]


def test_cookiecutter_json_is_found_where_the_template_is(pre_gen, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("PWD", raising=False)
    place = {"_repo_dir": str(ROOT), "_output_dir": str(tmp_path)}
    assert pre_gen.own_values(place) == CONTEXT
    place = {"_repo_dir": ROOT.name, "_output_dir": str(ROOT.parent)}
    assert pre_gen.own_values(place) == CONTEXT
    # The output goes elsewhere, and the shell says where the user is.
    place = {"_repo_dir": f"./{ROOT.name}", "_output_dir": str(tmp_path)}
    monkeypatch.setenv("PWD", str(ROOT.parent))
    assert pre_gen.own_values(place) == CONTEXT
    assert capsys.readouterr().err == ""


def test_cruft_does_not_say_where_the_template_is(pre_gen, capsys):
    assert pre_gen.own_values(resolved()) == {}
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("text", [None, "", "no JSON", '{"_redis": "of another template"}'])
def test_a_template_that_is_not_found_is_named(pre_gen, tmp_path, capsys, monkeypatch, text):
    monkeypatch.setenv("PWD", str(tmp_path))
    if text is not None:
        (tmp_path / "cookiecutter.json").write_text(text)
    assert pre_gen.own_values({"_repo_dir": ".", "_output_dir": str(tmp_path)}) == {}
    assert capsys.readouterr().err.startswith("Not compared with cookiecutter.json: it is not at ")


# Through real bakes


def test_a_refused_bake_tells_everything_and_leaves_nothing(bake, tmp_path, capfd):
    with pytest.raises(FailedHookException):
        bake(
            output=tmp_path,
            project_name="O'Brien '''\"\"\"\\",
            project_slug="con",
            redis_provider="heroku",
            cert_strictness="required",
        )
    error = capfd.readouterr().err
    assert error.startswith("Nothing was generated, because:\n  - project_name 'O\\'Brien ")
    assert "  - project_slug 'con' is a device on Windows" in error
    assert "  - cert_strictness 'required' cannot work" in error
    assert "(What follows is cookiecutter's own traceback; the reasons are above.)\n" in error
    assert list(tmp_path.iterdir()) == []


def test_a_derived_value_from_the_command_line_is_refused(bake, tmp_path, capfd):
    with pytest.raises(FailedHookException):
        bake(output=tmp_path, private={"__cert_reqs": "none"})
    assert "__cert_reqs is 'none', but it follows from the other answers" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_replay_of_older_facts_is_refused(bake, tmp_path, capfd):
    stale = copy.deepcopy(resolved())
    stale["_redis_providers"]["render"]["databases"] = 4
    with pytest.raises(FailedHookException):
        bake(output=tmp_path, replay=stale)
    assert "_redis_providers is not as in this template" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("hook", ["pre_gen_project.py", "post_gen_project.py"])
@pytest.mark.parametrize("module", ["json", "re", "yaml", "ast"])
def test_a_stray_module_in_the_temp_folder_is_not_imported(tmp_path, hook, module):
    copied = tmp_path / "tmp1234.py"
    copied.write_text((ROOT / "hooks" / hook).read_text("utf-8"))
    (tmp_path / f"{module}.py").write_text("raise SystemExit('hijacked')\n")
    done = subprocess.run([sys.executable, copied], capture_output=True, text=True, cwd=tmp_path)
    assert "hijacked" not in done.stderr
    assert "JSONDecodeError" in done.stderr  # The hook got as far as the unrendered RAW.
