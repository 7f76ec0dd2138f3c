"""The verification e-mail: promised in the database, sent by the worker, at least once."""

import logging
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from math import ceil

from celery import shared_task
from celery.exceptions import MaxRetriesExceededError, Reject, SoftTimeLimitExceeded
from django.db import Error, connection, transaction
from django.db.models import Count, F, Q
from django.db.models.functions import Now
from kombu.exceptions import OperationalError

from . import delivery
from .models import Lease, User, VerificationEmail

logger = logging.getLogger(__name__)

AGAIN_AFTER = timedelta(seconds=60)
# The task of a request comes within this time, or is taken for lost.
SWEEP_AFTER = timedelta(seconds=60)
OVERDUE_AFTER = timedelta(minutes=5)
GIVE_BACK_TIMEOUT = 3000  # milliseconds


def request_verification(user: User, domain: str) -> bool:
    """Promise an e-mail with a link to `domain`; False if one was promised within a minute.

    Call it in the transaction that saves the user. The e-mail survives a Redis that is down: the
    sweep sends what the queue lost.
    """
    asked = {"domain": domain, "requested_at": Now()}
    unclaimed = {"due_at": Now() + SWEEP_AFTER, "claimed_by": ""}
    untried = {"attempts": 0, "unanswered": 0, "last_error": ""}
    with transaction.atomic():
        # One request of a user at a time.
        User.objects.select_for_update(no_key=True).get(pk=user.pk)
        rows = VerificationEmail.objects.filter(user=user)
        if rows.filter(requested_at__gt=Now() - AGAIN_AFTER).exists():
            return False
        pending = rows.filter(delivery.PENDING)
        renewed = pending.filter(~delivery.CLAIMED).update(**asked, **unclaimed, **untried)
        # What a worker is sending now is left to it.
        if not renewed and not pending.update(**asked):
            rows.create(user=user, **asked, **unclaimed)
        transaction.on_commit(partial(queue, user.pk, domain), robust=True)
    return True


def queue(user_id: int, domain: str):
    """Send the task, or leave it to the next sweep when the broker cannot be reached."""
    try:
        send_verification_email.delay(user_id, domain)
    except OperationalError as error:
        logger.warning("verification e-mail of user %s not queued yet: %s", user_id, error)
        rows = VerificationEmail.objects.filter(delivery.PENDING, user_id=user_id, attempts=0)
        rows.update(due_at=Now())


@shared_task(bind=True)
def send_verification_email(self, user_id: int, domain: str):
    """Mail the user a link to verify the e-mail address, unless that is done already.

    Of any number of tasks and sweeps one sends a row. A task that finds another at it comes back
    when that one's claim ends. `domain` is for a user who was never promised an e-mail: it gets a
    row. Raises django.db.Error; then the sweep sends.
    """
    worker = delivery.claimant(self.request.hostname)
    rows = VerificationEmail.objects.filter(user_id=user_id)
    if not rows.exists() and delivery.addressees().filter(pk=user_id).exists():
        rows.get_or_create(user_id=user_id, closed_at=None, defaults={"domain": domain})
    free = rows.filter(delivery.FREE)
    delivery.close_what_is_in_vain(free)
    pk = free.values_list("pk", flat=True).first()
    row = pk and delivery.claim(pk, delivery.FREE, worker)
    if row:
        # These two gave the claim up: the sweep tries again.
        given_up = suppress(delivery.ServerUnavailable, SoftTimeLimitExceeded)
        with given_up, delivery.MailServer() as server:
            delivery.deliver(row, server)
        return
    rest = rows.filter(delivery.CLAIMED).annotate(rest=F("due_at") - Now())
    rest = rest.values_list("rest", flat=True).first()
    if rest is None:
        logger.info("no verification e-mail to send to user %s (any more, or just now)", user_id)
        return
    try:
        raise self.retry(countdown=ceil(rest.total_seconds()) + 1, max_retries=3)
    except (MaxRetriesExceededError, Reject) as error:  # Reject: the broker took no retry
        message = "verification e-mail of user %s is left to the sweep: %s"
        logger.warning(message, user_id, error)


def give_back_claims(worker: str) -> int:
    """Free what this worker's processes held when they ended, for the next one; how many mails.

    Call it when they are gone. It never raises, and waits for a lock for GIVE_BACK_TIMEOUT only.
    """
    now_free = {"due_at": Now(), "claimed_by": ""}
    try:
        delivery.drop_broken_connection()
        if connection.vendor == "sqlite":
            with connection.cursor() as cursor:
                cursor.execute(f"PRAGMA busy_timeout = {GIVE_BACK_TIMEOUT}")
        with transaction.atomic():
            if connection.vendor == "postgresql":
                with connection.cursor() as cursor:
                    cursor.execute(f"SET LOCAL statement_timeout = {GIVE_BACK_TIMEOUT}")
            claims = VerificationEmail.objects.filter(delivery.PENDING, claimed_by=worker)
            count = claims.update(**now_free)
            Lease.objects.filter(worker=worker).update(until=Now(), worker="")
    except Error as error:
        words = delivery.words_of(error)
        logger.warning("claims of %s not given back, they end by themselves: %s", worker, words)
        return 0
    if count:
        logger.info("%s verification e-mails given back by %s", count, worker)
    return count


@dataclass(frozen=True)
class Summary:
    """What waits, and what went wrong."""

    waiting: int  # all that are pending
    overdue: int  # of these, due for more than OVERDUE_AFTER
    failing: int  # of these, the last attempt failed
    refused: int  # refused, given up or possibly sent within a day
    reason: str  # of the latest that is failing or refused, in the mail server's words, or empty


def summary() -> Summary:
    """For the doctor. Raises django.db.Error."""
    not_sent = (
        VerificationEmail.State.REFUSED,
        VerificationEmail.State.GIVEN_UP,
        VerificationEmail.State.POSSIBLY_SENT,
    )
    failing = delivery.PENDING & ~Q(last_error="")
    refused = Q(state__in=not_sent, closed_at__gt=Now() - timedelta(days=1))
    counts = VerificationEmail.objects.aggregate(
        waiting=Count("pk", filter=delivery.PENDING),
        overdue=Count("pk", filter=delivery.PENDING & Q(due_at__lt=Now() - OVERDUE_AFTER)),
        failing=Count("pk", filter=failing),
        refused=Count("pk", filter=refused),
    )
    with_reason = VerificationEmail.objects.filter(failing | refused).exclude(last_error="")
    latest = with_reason.order_by(F("closed_at").desc(nulls_first=True), "-due_at").first()
    reason = delivery.without_addresses(latest.last_error) if latest else ""
    return Summary(**counts, reason=reason)
