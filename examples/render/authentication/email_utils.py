"""The verification e-mail: promised by a view in the database, and sent by a worker.

The promise is a row of VerificationEmail. A task is sent for it, and the sweep (sweeper.py) sends
what no task has sent. So each e-mail is sent at least once, even if Redis loses the task.
"""

import logging
from contextlib import suppress
from datetime import timedelta
from functools import partial
from math import ceil

from celery import Task, shared_task
from celery.exceptions import MaxRetriesExceededError, Reject, SoftTimeLimitExceeded
from django.db import transaction
from django.db.models import F
from django.db.models.functions import Now
from kombu.exceptions import OperationalError

from . import claims, outcomes
from .delivery import deliver
from .mail_errors import ServerUnavailable
from .mail_server import MailServer
from .models import User, VerificationEmail

logger = logging.getLogger(__name__)

# A user can ask for one e-mail in this time.
REQUEST_INTERVAL = timedelta(seconds=60)
# The task of a request runs within this time. Otherwise the sweep takes it for lost.
SWEEP_AFTER = timedelta(seconds=60)


def request_verification(user: User, domain: str) -> bool:
    """Promise the user an e-mail with a link to `domain`.

    Call it in the transaction that saves the user. It returns False, and promises nothing, if the
    user asked less than REQUEST_INTERVAL ago. A Redis that is down delays the e-mail; it does not
    fail the request.
    """
    with transaction.atomic():
        # If a user asks twice at the same moment, the second request waits here. Then it finds the
        # promise that the first one has made.
        User.objects.select_for_update(no_key=True).get(pk=user.pk)
        emails = VerificationEmail.objects.filter(user=user)
        if emails.filter(requested_at__gt=Now() - REQUEST_INTERVAL).exists():
            return False
        promise(user, domain)
        transaction.on_commit(partial(queue, user.pk, domain), robust=True)
    return True


def promise(user: User, domain: str) -> None:
    """Renew the user's pending e-mail, or make one."""
    emails = VerificationEmail.objects.filter(user=user)
    renewed = emails.unclaimed().update(
        domain=domain,
        requested_at=Now(),
        due_at=Now() + SWEEP_AFTER,
        claimed_by="",
        attempts=0,
        unanswered=0,
        last_error="",
    )
    if renewed:
        return
    # A worker may be sending the e-mail at this moment. Its claim and its count of attempts stay.
    if emails.pending().update(domain=domain, requested_at=Now()):
        return
    emails.create(user=user, domain=domain, requested_at=Now(), due_at=Now() + SWEEP_AFTER)


def queue(user_id: int, domain: str) -> None:
    """Send the task. If the broker does not take it, the next sweep sends the e-mail."""
    try:
        send_verification_email.delay(user_id, domain)
    except OperationalError as error:
        logger.warning("verification e-mail of user %s not queued yet: %s", user_id, error)
        untried = VerificationEmail.objects.pending().filter(user_id=user_id, attempts=0)
        untried.update(due_at=Now())


@shared_task(bind=True)
def send_verification_email(self: Task, user_id: int, domain: str) -> None:
    """Send the user an e-mail with a verification link, unless that is done already.

    However many tasks and sweeps run, one of them sends the e-mail. A task that finds another one
    at work comes back when that one's claim ends. The host of the link is the promise's; `domain`
    is for a user who was never promised an e-mail.

    Raises django.db.Error. The sweep tries again then.
    """
    make_missing_promise(user_id, domain)
    email = claim_email_of(user_id, claims.claimant(self.request.hostname))
    if email is not None:
        send_claimed(email)
        return
    time_left = time_until_claim_ends(user_id)
    if time_left is None:
        logger.info("no verification e-mail to send to user %s now", user_id)
        return
    retry_after(time_left, self, user_id)


def make_missing_promise(user_id: int, domain: str) -> None:
    """Promise an e-mail to a user who was never promised one, for code that only sends the task."""
    if VerificationEmail.objects.filter(user_id=user_id).exists():
        return
    if not User.awaiting_verification_email().filter(pk=user_id).exists():
        return
    VerificationEmail.objects.get_or_create(
        user_id=user_id, closed_at=None, defaults={"domain": domain}
    )


def claim_email_of(user_id: int, worker: str) -> VerificationEmail | None:
    """Claim the user's e-mail, or return None if there is nothing that the task may send now."""
    free = VerificationEmail.objects.filter(user_id=user_id).free_for_task()
    outcomes.close_pointless(free)
    pk = free.values_list("pk", flat=True).first()
    if pk is None:
        return None
    return claims.claim(pk, free, worker)


def send_claimed(email: VerificationEmail) -> None:
    """Send the e-mail over a connection of its own. Raises django.db.Error."""
    # With one of these errors deliver() has postponed the e-mail, so the sweep tries again.
    with suppress(ServerUnavailable, SoftTimeLimitExceeded), MailServer() as server:
        deliver(email, server)


def time_until_claim_ends(user_id: int) -> timedelta | None:
    """How long another worker may still send the user's e-mail, or None if none does."""
    claimed = VerificationEmail.objects.filter(user_id=user_id).claimed()
    time_left = claimed.annotate(time_left=F("due_at") - Now())
    return time_left.values_list("time_left", flat=True).first()


def retry_after(time_left: timedelta, task: Task, user_id: int) -> None:
    """Let Celery run the task again when the claim has ended.

    Raises celery.exceptions.Retry, which tells Celery so. After three retries, or if the broker
    does not take the task, the e-mail is left to the sweep.
    """
    try:
        raise task.retry(countdown=ceil(time_left.total_seconds()) + 1, max_retries=3)
    except (MaxRetriesExceededError, Reject) as error:
        # Reject means that the broker did not take the task.
        logger.warning("verification e-mail of user %s is left to the sweep: %s", user_id, error)
