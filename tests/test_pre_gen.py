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

from tests.answers import (
    CONTEXT,
    PRODUCT,
    ROOT,
    SERVICE,
    STRICTNESS,
    TARGETS,
    refused,
    resolved,
    row_id,
)


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
    assert "answer recommended; then set REDIS_CERT_REQS=required and REDIS_CA_CERTS" in text
    assert "`manage.py doctor --certificate` prints what to put there" in text


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
    assert text.startswith(f"project_name {name!r} ")
    assert "answer with at most 60" in text


@pytest.mark.parametrize("slug", ["a", "my_service", "a" * 40, "match", "true", "null", "e1", "x_"])
def test_a_plain_slug_is_accepted(pre_gen, slug):
    assert pre_gen.problems(resolved(project_slug=slug)) == []


@pytest.mark.parametrize(
    ("slug", "reason", "instead"),
    [
        ("", "not a plain package name", "my_service"),
        ("_", "not a plain package name", "my_service"),
        ("9lives", "not a plain package name", "lives"),
        ("_private", "not a plain package name", "private"),
        ("My-Service", "not a plain package name", "my_service"),
        ("my service", "not a plain package name", "my_service"),
        ("a\n", "not a plain package name", "a"),
        ("a" * 41, "not a plain package name", "a" * 40),
        ("../up", "not a plain package name", "up"),
        ("Class", "not a plain package name", "class_service"),
        ("класс", "not a plain package name", "my_service"),
        ("class", "Python keyword", "class_service"),
        ("celery", "package of that name", "celery_service"),
        ("environ", "package of that name", "environ_service"),
        ("json", "Python's own module", "json_service"),
        ("tomllib", "Python's own module", "tomllib_service"),
        ("compression", "Python's own module", "compression_service"),
        ("test", "Python's own module", "test_service"),
        ("authentication", "another file or folder", "authentication_service"),
        ("manage", "another file or folder", "manage_service"),
        ("security", "system checks", "security_service"),
        ("con", "device on Windows", "con_service"),
        ("lpt1", "device on Windows", "lpt1_service"),
    ],
)
def test_a_slug_that_cannot_work_is_refused_with_another(pre_gen, slug, reason, instead):
    [text] = pre_gen.problems({**resolved(), "project_slug": slug})
    assert text.startswith(f"project_slug {slug!r} ")
    assert reason in text
    assert text.endswith(f"answer for example {instead!r}.")


@given(st.text())
def test_a_suggested_slug_is_always_accepted(pre_gen, slug):
    instead = pre_gen.suggestion(slug)
    assert pre_gen.SLUG.fullmatch(instead)
    assert pre_gen.reserved(instead) is None


def test_every_reserved_slug_has_an_accepted_suggestion(pre_gen):
    slugs = " ".join(pre_gen.TAKEN.values()).split()
    assert len(slugs) > 300
    for slug in slugs:
        instead = pre_gen.suggestion(slug)
        assert pre_gen.SLUG.fullmatch(instead), slug
        assert pre_gen.reserved(instead) is None, slug


def test_every_package_of_the_service_is_reserved(pre_gen):
    imports = {"django-environ": "environ", "python-dateutil": "dateutil"}
    for name in ("requirements.txt", "requirements-dev.txt"):
        packages = re.findall(r"^([\w.-]+)(?:\[.*?\])?==", (SERVICE / name).read_text(), re.M)
        assert packages
        for package in packages:
            slug = imports.get(package, package.lower().replace("-", "_"))
            assert pre_gen.reserved(slug), slug


def test_every_file_and_folder_beside_the_package_is_reserved(pre_gen):
    names = {path.stem for path in SERVICE.iterdir() if path.is_dir() or path.suffix == ".py"}
    names = {name for name in names if name.isidentifier()}
    assert {"authentication", "operations", "manage", "script", "templates", "tests"} <= names
    assert [name for name in names if not pre_gen.reserved(name)] == []


def test_all_problems_are_told_at_once(pre_gen):
    answers = resolved(
        project_name="O'Brien",
        project_slug="class",
        redis_provider="heroku",
        cert_strictness="required",
    )
    answers["__databases"] = "1"
    starts = [text.split()[0] for text in pre_gen.problems(answers)]
    assert starts == ["project_name", "project_slug", "cert_strictness", "__databases"]


@pytest.mark.parametrize("key", [k for k in CONTEXT if k.startswith("__") and k != "__prompts__"])
def test_a_derived_value_given_by_hand_is_refused(pre_gen, key):
    [text] = pre_gen.problems(resolved(**{key: "none of these"}))
    assert text.startswith(f"{key} is 'none of these', but ")
    assert text.endswith(f"leave {key} out.")
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
    assert CONTEXT["_facts_version"] == pre_gen.FACTS_VERSION


@pytest.mark.parametrize("version", [0, 99, "1", None])
def test_facts_of_another_release_are_refused(pre_gen, version):
    [text] = pre_gen.problems({**resolved(), "_facts_version": version, "_redis_providers": {}})
    assert text.startswith(f"_facts_version is {version!r} and this template's is ")
    assert text.endswith("run again without --replay.")


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
        "These answers cannot work:\n  - One.\n  - Two.\n"
        "(What follows is cookiecutter's own traceback; the reasons are above.)\n",
    )


@pytest.mark.parametrize("name", ["pre_gen_project.py", "post_gen_project.py"])
def test_a_hook_is_python_of_3_10_with_one_rendered_line(name):
    text = (ROOT / "hooks" / name).read_text("utf-8")
    ast.parse(text, feature_version=(3, 10))
    assert re.findall("{[{%#].*", text) == ["{{ cookiecutter | tojson }}'''  # fmt: skip"]


# Through real bakes


def test_a_refused_bake_tells_everything_and_leaves_nothing(bake, tmp_path, capfd):
    with pytest.raises(FailedHookException):
        bake(
            output=tmp_path,
            project_name="O'Brien '''\"\"\"\\",
            project_slug="class",
            redis_provider="heroku",
            cert_strictness="required",
        )
    error = capfd.readouterr().err
    assert error.startswith("These answers cannot work:\n  - project_name 'O\\'Brien ")
    assert "  - project_slug 'class' is a Python keyword" in error
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
    stale["_facts_version"] = 0
    with pytest.raises(FailedHookException):
        bake(output=tmp_path, replay=stale)
    assert "run again without --replay" in capfd.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("hook", ["pre_gen_project.py", "post_gen_project.py"])
@pytest.mark.parametrize("module", ["json", "re", "yaml", "ast"])
def test_a_stray_module_in_the_temp_folder_is_not_imported(tmp_path, hook, module):
    copied = tmp_path / "tmp1234.py"
    copied.write_text((ROOT / "hooks" / hook).read_text("utf-8"))
    (tmp_path / f"{module}.py").write_text("raise SystemExit('hijacked')\n")
    done = subprocess.run([sys.executable, copied], capture_output=True, text=True, cwd=tmp_path)
    assert "hijacked" not in done.stderr
    assert "JSONDecodeError" in done.stderr  # it came as far as the unrendered RAW
