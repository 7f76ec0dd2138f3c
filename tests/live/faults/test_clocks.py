"""Two machines' clocks differ by minutes: nothing stops, and the doctor names the clock."""

import glob
import re
import time

import pytest

from harness.postgres import INSTALL as POSTGRES
from harness.postgres import Postgres, find_programs

FAKETIME = "/usr/lib/*/faketime/libfaketimeMT.so.1"
INSTALL = "NOT TESTED: no libfaketime: apt-get install libfaketime"
SWEPT = 3 * 60  # seconds
SILENCE = """
from datetime import timedelta
from django.utils import timezone
from authentication.models import User, VerificationEmail
from operations.models import Heartbeat

earlier = timezone.now() - timedelta(minutes=20)
Heartbeat.objects.update(at=earlier)
user = User.objects.create(username="ada", email="ada@example.com", is_active=False)
VerificationEmail.objects.create(user=user, domain="service.example", requested_at=earlier)
"""


@pytest.mark.all
@pytest.mark.parametrize("minutes", [5, -5], ids=["5 min ahead", "5 min behind"])
def test_a_worker_whose_clock_differs_still_sweeps_and_is_ready(stage, minutes):
    """Only the worker's clock is wrong; those of web, beat and doctor are right."""
    library = next(iter(glob.glob(FAKETIME)), None)
    if library is None:
        pytest.skip(INSTALL)
    if find_programs() is None:
        pytest.skip(f"NOT TESTED: {POSTGRES}")
    # SQLite has no clock of its own, and uses that of the process that asks.
    database = stage.add(Postgres())
    stage.start_redis()
    stage.prepare(DATABASE_URL=database.url)
    stage.sweep_often()
    # The monotonic clock belongs to one machine, so it stays right.
    environment = f"LD_PRELOAD={library} DONT_FAKE_MONOTONIC=1 FAKETIME={minutes * 60:+d}s"
    stage.replace_in(
        "supervisord.conf", "^command=(celery .* worker)", rf"command=env {environment} \1"
    )
    stage.start(ready=False)
    stage.wait_ready()
    stage.service.wait_for_status("/readyz", 200, 30)

    # This looks as if beat had been silent for long, and a mail's task were lost.
    stage.manage(SILENCE)
    stage.mailbox.wait("ada@example.com", SWEPT)
    stage.service.wait_for_status("/readyz", 200, 30)
    for _ in range(10):
        status, probes = stage.readyz()
        assert status == 200, probes
        time.sleep(1)
    assert len(stage.mailbox.messages()) == 1

    _, probes = stage.doctor()
    about = [text for text in probes.values() if re.search("clock", text, re.I)]
    assert about, probes
    assert re.search(r"\b(29\d|30\d)\b|\b5(\.\d)? min", about[0]), about[0]
    assert about[0].startswith(("warn", "fail"))
