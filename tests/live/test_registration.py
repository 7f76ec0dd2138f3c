"""Every provider's stand-in: a service baked for it registers people and mails them."""

import pytest

from harness import journey
from harness.answers import ROWS
from harness.stand_ins import NOT_LIVE_TESTED

pytestmark = pytest.mark.live


@pytest.mark.parametrize("name", journey.JOURNEYS)
def test_registers_mails_verifies_and_logs_in(name, deployment, stand_in, tables):
    journey.take(name, deployment, stand_in, tables)


def test_no_row_is_forgotten():
    (rows,) = test_registers_mails_verifies_and_logs_in.pytestmark
    tested = {provider for provider, _ in map(journey.JOURNEYS.get, rows.args[1])}
    assert tested == ROWS.keys() - NOT_LIVE_TESTED.keys()
