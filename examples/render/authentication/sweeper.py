"""The sweep: it sends the verification e-mails that no task has sent.

A sweep is a chain of slices of about 10 seconds, so that other tasks get their turn between two of
them. `operations.tasks` queues the slices (D-59).
"""

import logging
import time
import uuid

from celery.exceptions import SoftTimeLimitExceeded
from django.db.models import Q
from django.db.models.functions import Now

from . import claims, outcomes
from .delivery import deliver
from .mail_errors import ServerUnavailable
from .mail_server import MailServer
from .models import Lease, VerificationEmail

logger = logging.getLogger(__name__)

# The name of the lease that only one chain of slices holds.
SWEEP = "sweep"
# Seconds; less than CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT, so that a deploy interrupts no slice.
SLICE = 10
# How many e-mails are looked up at once.
BATCH = 100


def sweep_is_missing() -> bool:
    """Whether an e-mail is due and no sweep is running."""
    running = Lease.objects.filter(name=SWEEP, until__gt=Now())
    return VerificationEmail.objects.due().exists() and not running.exists()


def sweep(worker: str, ticket: str = "") -> str:
    """Send due e-mails for about SLICE seconds.

    Return the ticket for the next slice, or "" if there is none. Without a ticket a new chain
    begins. Raises django.db.Error.

    All chains share one lease, so a slice does nothing while another chain is running. A ticket is
    good for one slice, even if its message is delivered twice. If a worker dies, the lease ends
    after CLAIM_DURATION, and another chain can begin.

    The e-mails are taken in the order of `due_at`, and a failed attempt sets `due_at` to a time
    after all that is due now. So nothing is ever added to the e-mails that are ahead of another
    one, and none has to wait for ever.

    If the mail server fails for every e-mail, the chain ends. The e-mail that was tried is
    postponed, and the others stay due.
    """
    ticket = take_lease(worker, ticket)
    if not ticket:
        return ""
    try:
        more_is_due = send_due_emails(worker)
    except ServerUnavailable as error:
        logger.warning("the sweep ends because the mail server fails: %s", error)
        more_is_due = False
    except SoftTimeLimitExceeded:
        # The e-mail that took so long was postponed, and the next slice goes on with the others.
        more_is_due = True
    if more_is_due:
        return pass_lease_on(ticket)
    end_chain(ticket)
    return ""


def send_due_emails(worker: str) -> bool:
    """Send until nothing is due or the slice is over; return whether more is due."""
    end = time.monotonic() + SLICE
    with MailServer() as server:
        while True:
            outcomes.close_pointless(VerificationEmail.objects.due())
            batch = next_batch()
            if not batch:
                return False
            for pk in batch:
                email = claims.claim(pk, VerificationEmail.objects.due(), worker)
                if email is not None:
                    deliver(email, server)
                if time.monotonic() >= end:
                    return VerificationEmail.objects.due().exists()


def next_batch() -> list[int]:
    """The ids of the e-mails that have been due for longest."""
    due = VerificationEmail.objects.due().order_by("due_at", "pk")
    return list(due.values_list("pk", flat=True)[:BATCH])


def take_lease(worker: str, ticket: str) -> str:
    """Take the lease for one slice. Return its new ticket, or "" if another chain is running."""
    lease, _ = Lease.objects.get_or_create(name=SWEEP)
    may_take = Q(until__lte=Now())
    if ticket:
        may_take |= Q(ticket=ticket)
    new_ticket = uuid.uuid4().hex
    taken = Lease.objects.filter(may_take, pk=lease.pk).update(
        ticket=new_ticket, worker=worker, until=Now() + claims.CLAIM_DURATION
    )
    if not taken:
        return ""
    return new_ticket


def pass_lease_on(ticket: str) -> str:
    """Keep the lease for the next slice. Return its ticket, or "" if the lease was lost."""
    next_ticket = uuid.uuid4().hex
    passed_on = Lease.objects.filter(name=SWEEP, ticket=ticket).update(
        ticket=next_ticket, worker="", until=Now() + claims.CLAIM_DURATION
    )
    if not passed_on:
        return ""
    return next_ticket


def end_chain(ticket: str) -> None:
    """Free the lease: nothing is due any more, or the next slice could not be queued."""
    held = Lease.objects.filter(name=SWEEP, ticket=ticket)
    held.update(ticket="", worker="", until=Now())
