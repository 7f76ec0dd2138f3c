"""Every provider's stand-in: a service baked for it registers people and mails them."""

import pytest

from harness import journey
from harness.answers import ROWS
from harness.leftovers import nothing_left_in
from harness.stand_ins import NOT_LIVE_TESTED

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def results(request, deployment, stand_in, tmp_path_factory):
    """{name: error or None} of all selected journeys, which are taken side by side."""
    chosen = [item for item in request.session.items if item.path == request.path]
    names = [item.callspec.params["name"] for item in chosen if "results" in item.fixturenames]
    with nothing_left_in(tmp_path_factory.getbasetemp()):
        return journey.run_all(names, deployment, stand_in, tmp_path_factory.mktemp("copies"))


@pytest.mark.parametrize("name", journey.JOURNEYS)
def test_registers_mails_verifies_and_logs_in(name, results):
    if results[name]:
        raise results[name]


def test_no_row_is_forgotten():
    (rows,) = test_registers_mails_verifies_and_logs_in.pytestmark
    tested = {provider for provider, _ in map(journey.JOURNEYS.get, rows.args[1])}
    assert tested == ROWS.keys() - NOT_LIVE_TESTED.keys()
