"""Housekeeping sends what is due, and nothing that need not or cannot be sent is in its way."""

import re

import pytest

from tests.support.processes import wait_until
from tests.support.smtp_sink import SMTPSink

pytestmark = pytest.mark.live
GOOD = "good@example.com"
REFUSED = "refused.example"
# 100 that need nothing and 100 that are refused, all older than the one that is due.
PROMISES = f"""
from datetime import timedelta
from django.utils import timezone
from authentication.models import User, VerificationEmail

now = timezone.now()
users = [User(username=f"v{{n}}", email=f"v{{n}}@example.com", verified_at=now) for n in range(100)]
for n in range(100):
    users.append(User(username=f"r{{n}}", email=f"r{{n}}@{REFUSED}", is_active=False))
users.append(User(username="good", email="{GOOD}", is_active=False))
rows = []
for number, user in enumerate(User.objects.bulk_create(users)):
    requested = now - timedelta(minutes=20, seconds=-number)
    rows.append(VerificationEmail(user=user, domain="service.example", requested_at=requested))
VerificationEmail.objects.bulk_create(rows)
User.objects.create_superuser("root", "root@example.com", "correct horse 7")
"""


def start(stage):
    sink = stage.add(SMTPSink(refuses=lambda address: address.endswith(REFUSED)))
    stage.start_redis()
    stage.prepare(EMAIL_URL=sink.url)
    stage.sweep_often()
    stage.start()
    stage.manage(PROMISES)
    return sink


def test_rows_that_need_nothing_or_are_refused_starve_no_other(stage):
    """The one that is due is mailed at the next housekeeping; the refused ones once, and shown."""
    sink = start(stage)
    wait_until(lambda: sink.messages(GOOD), 90, "the one mail that is due")
    refused = {f"r{number}@{REFUSED}" for number in range(100)}
    wait_until(lambda: refused <= set(sink.tried), 60, "each address is tried")

    stage.age_promises(minutes=60)
    later = stage.register("later")
    stage.age_promises(minutes=30)
    wait_until(lambda: sink.messages(later), 90, "a later mail")
    often = {address: count for address, count in sink.tried.items() if count > 1}
    assert not often, f"{len(often)} refused addresses were tried again"
    assert len(sink.messages(GOOD)) == 1

    _, probes = stage.doctor()
    browser = stage.service.browser()
    assert browser.log_in("root", "correct horse 7")
    page = browser.get("/admin/authentication/verificationemail/")
    assert page.status == 200
    shown = " ".join([*probes.values(), page.text])
    assert re.search("refused|given up", shown, re.I), "nobody is told of the refused addresses"
