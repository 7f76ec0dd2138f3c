"""How pytest-xdist deals out the tests of this folder, and whose assertions pytest explains."""

import pytest

# Their assertions judge a bake, and tests read in the message what differs.
pytest.register_assert_rewrite("harness.bakes", "harness.stated")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Keep all tests of one combination in one process, which bakes it once."""
    for item in items:
        answers = getattr(item, "callspec", None) and item.callspec.params.get("answers")
        if isinstance(answers, dict):
            item.add_marker(pytest.mark.xdist_group("-".join(map(str, answers.values()))))
