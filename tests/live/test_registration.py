"""Every provider's stand-in: a service baked for it registers people and mails them."""

import pytest

from harness import journey
from harness.answers import ROWS, varied
from harness.deployments import ONE_OF_EACH_TARGET
from harness.policy_classes import CLASSES, class_of
from harness.stand_ins import NOT_LIVE_TESTED

# By default one row for each deploy target, and a pinned one: together they have every TLS policy.
SHOWN = [*ONE_OF_EACH_TARGET, "heroku_pinned"]
NAMES = varied([*SHOWN, *(name for name in journey.JOURNEYS if name not in SHOWN)], len(SHOWN))


@pytest.mark.parametrize("name", NAMES)
def test_registers_mails_verifies_and_logs_in(name, deployment, stand_in, tables):
    journey.take(name, deployment, stand_in, tables)


def test_no_row_is_forgotten():
    tested = {journey.JOURNEYS[name][0] for (name,) in (each.values for each in NAMES)}
    assert tested == ROWS.keys() - NOT_LIVE_TESTED.keys()


def test_those_that_are_always_taken_have_every_tls_policy():
    found = set()
    for provider, pinned in map(journey.JOURNEYS.get, SHOWN):
        row = ROWS[provider]
        scheme = "redis" if row["tls"] == "none" else "rediss"
        found.add(class_of(row, "required" if pinned else row["cert_reqs"], scheme))
    assert found == CLASSES.keys()
