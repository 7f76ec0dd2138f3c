"""Housekeeping sends what is due. Mails that cannot or need not be sent are not in its way."""

import re

import pytest

from harness.processes import wait_until
from harness.smtp_sink import SMTPSink

NOBODY = "nobody.example"  # The mail server refuses every address there.
SWEPT = 90  # seconds; three times what the copy's housekeeping leaves between two sweeps
# Promises of 20 minutes ago whose tasks are lost, so that only a sweep finds them.
PROMISE = """
from datetime import timedelta
from django.utils import timezone
from authentication.models import User, VerificationEmail

def promise(users):
    earlier = timezone.now() - timedelta(minutes=20)
    for user in User.objects.bulk_create(users):
        earlier += timedelta(seconds=1)
        VerificationEmail.objects.create(user=user, domain="service.example", requested_at=earlier)

def new(name, address, **more):
    return User(username=name, email=address, is_active=False, **more)
"""
# All of them are older than the one that can be sent.
MANY = f"""{PROMISE}
now = timezone.now()
promise(
    [new(f"v{{n}}", f"v{{n}}@example.com", verified_at=now) for n in range(100)]
    + [new(f"r{{n}}", f"r{{n}}@{NOBODY}") for n in range(100)]
    + [new("ada", "ada@example.com")]
)
User.objects.create_superuser("root", "root@example.com", "correct horse 7")
"""


@pytest.mark.all
def test_rows_that_need_nothing_or_are_refused_starve_no_other(stage):
    """The next sweep sends the good one. The refused ones are tried once, and shown."""
    sink = stage.add(SMTPSink(refuses=lambda address: address.endswith(NOBODY)))
    stage.start_redis()
    stage.prepare(EMAIL_URL=sink.url)
    stage.sweep_often()
    stage.start()
    stage.manage(MANY)
    wait_until(lambda: sink.messages("ada@example.com"), SWEPT, "the one mail that can be sent")
    refused = {f"r{number}@{NOBODY}" for number in range(100)}
    wait_until(lambda: refused <= set(sink.tried), SWEPT, "each address is tried")

    # Everything that waits for another try is due now, and the next sweep comes.
    stage.age_promises(minutes=60)
    stage.manage(f'{PROMISE}\npromise([new("grace", "grace@example.com")])')
    wait_until(lambda: sink.messages("grace@example.com"), SWEPT, "a mail of the next sweep")
    again = {address: count for address, count in sink.tried.items() if count > 1}
    assert again == {}
    assert set(sink.tried) == refused | {"ada@example.com", "grace@example.com"}

    _, probes = stage.doctor()
    assert any(re.match(r"warn: .*\b100\b", text) for text in probes.values()), probes
    browser = stage.service.browser()
    assert browser.log_in("root", "correct horse 7")
    page = browser.get("/admin/authentication/verificationemail/")
    assert sink.REFUSAL in page.text
