"""Tasks that keep the service well, and that show that it is."""

import logging
import os
import time
from datetime import timedelta

from celery import Task, shared_task
from django.conf import settings
from django.db.models import Q
from django.db.models.functions import Now
from kombu.exceptions import OperationalError

from authentication import claims, sweeper

from .models import DeafWorker, Heartbeat, PutAsideMessage, RoundTrip

logger = logging.getLogger(__name__)

HOUSEKEEPING = "housekeeping"
QUIET = timedelta(seconds=30)  # between two runs of housekeeping, which beat sends every 120 s
KEPT_FOR = timedelta(days=14)
MOST_KEPT = 1000  # rows of each model
ROUND_TRIPS_KEPT_FOR = timedelta(hours=1)  # of a doctor that was killed before it deleted them


def process_of(worker: str) -> str:
    return f"{worker}, process {os.getpid()}"


def leave_heartbeat(name: str, worker: str) -> None:
    Heartbeat.objects.update_or_create(
        name=name, defaults={"at": Now(), "worker": process_of(worker)}
    )


def leave_first_heartbeat(name: str, worker: str) -> bool:
    """Leave a heartbeat unless there is one of the last QUIET seconds; whether it was left."""
    # A heartbeat from the future was left before the database's clock was set back.
    outdated = Heartbeat.objects.filter(Q(at__lte=Now() - QUIET) | Q(at__gt=Now()), name=name)
    if outdated.update(at=Now(), worker=process_of(worker)):
        return True
    _, created = Heartbeat.objects.get_or_create(
        name=name, defaults={"at": Now(), "worker": process_of(worker)}
    )
    return created


# The task has no `expires`. The worker's clock would judge it, and that clock may be minutes ahead
# of beat's.
@shared_task(bind=True, priority=0)
def housekeeping(self: Task) -> None:
    """Every 120 s: leave the heartbeat of beat, broker, worker and database; do what is overdue.

    A worker that was away for an hour finds thirty of these tasks: all but the first do nothing.
    """
    if not leave_first_heartbeat(HOUSEKEEPING, self.request.hostname):
        return
    if sweeper.sweep_is_missing():
        queue_sweep()
    prune()


def prune() -> None:
    """Delete the rows that nobody will look at any more."""
    RoundTrip.objects.filter(asked_at__lt=Now() - ROUND_TRIPS_KEPT_FOR).delete()
    for model in (PutAsideMessage, DeafWorker):
        model.objects.filter(at__lt=Now() - KEPT_FOR).delete()
        # However many rows there are, the newest suffice to see what is wrong.
        newest = model.objects.order_by("-pk").values("pk")[:MOST_KEPT]
        model.objects.exclude(pk__in=newest).delete()


# With the priority of ordinary tasks: between two slices other tasks have their turn.
@shared_task(bind=True, priority=settings.CELERY_TASK_DEFAULT_PRIORITY)
def sweep(self: Task, ticket: str = "") -> None:
    """Send a slice of the verification e-mails that are due, and queue the next slice.

    Without a ticket it begins a new sweep, unless a sweep is running already.
    """
    next_ticket = sweeper.sweep(claims.claimant(self.request.hostname), ticket)
    if next_ticket and not queue_sweep(next_ticket):
        sweeper.end_chain(next_ticket)


def queue_sweep(*ticket: str) -> bool:
    """Whether the broker took the task. If not, the next housekeeping begins a new sweep."""
    try:
        sweep.delay(*ticket)
    except OperationalError as error:
        logger.warning("sweep not queued: %s", error)
        return False
    return True


@shared_task(bind=True, priority=0)
def answer(self: Task, token: str) -> None:
    """The worker's half of the doctor's round trip: fill in the row that the doctor has made."""
    row = RoundTrip.objects.filter(token=token)
    row.update(worker=process_of(self.request.hostname), clock=time.time())
