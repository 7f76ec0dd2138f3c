"""The template under pytest-cookies, as its users test templates."""

import pytest

from harness.answers import QUESTIONS, ROOT, check_keys


@pytest.fixture
def bake(cookies):
    """bake(**answers) -> pytest-cookies' result. Keys are checked; it ignores unknown ones."""

    def bake(**answers):
        check_keys(answers, QUESTIONS)
        return cookies.bake(extra_context=answers, template=str(ROOT))

    return bake


def test_the_defaults_bake(bake):
    result = bake()
    assert (result.exit_code, result.exception) == (0, None)
    assert result.project_path.name == "my_service"
    assert result.context["__cert_reqs"] == "required"


def test_answers_that_cannot_work_are_refused_with_the_reason(bake, capfd):
    result = bake(redis_provider="heroku", cert_strictness="required", project_slug="con")
    assert result.exit_code == -1
    assert result.project_path is None
    reasons = capfd.readouterr().err
    assert "device on Windows" in reasons
    assert "Answer recommended" in reasons


def test_a_mistyped_key_is_an_error_here(bake):
    with pytest.raises(ValueError, match="redis_provder"):
        bake(redis_provder="upstash")
