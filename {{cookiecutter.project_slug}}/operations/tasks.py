"""Tasks that keep the service well and show that it is."""

import logging
import os
import time
from datetime import timedelta

from celery import shared_task
from django.conf import settings
from django.db.models import Q
from django.db.models.functions import Now
from kombu.exceptions import OperationalError

from authentication import claims, sweeper

from .models import DeafWorker, Heartbeat, PutAsideMessage

logger = logging.getLogger(__name__)

HOUSEKEEPING = "housekeeping"
ROUND_TRIP = "round trip "
ROUND_TRIP_TIMEOUT = 10  # seconds
KEPT_FOR = timedelta(days=14)
MOST_KEPT = 1000  # rows of a kind
QUIET = timedelta(seconds=30)  # between two runs of housekeeping, which beat sends every 120 s


def beat_of(worker: str) -> dict:
    where = f"{worker}, process {os.getpid()}"
    return {"at": Now(), "worker": where, "clock": time.time()}


def leave_heartbeat(name: str, worker: str):
    Heartbeat.objects.update_or_create(name=name, defaults=beat_of(worker))


def leave_first_heartbeat(name: str, worker: str) -> bool:
    """Leave it unless one was left within QUIET, by the database's clock; whether it was left."""
    # One from the future was left before the database's clock was set back.
    old = Heartbeat.objects.filter(Q(at__lte=Now() - QUIET) | Q(at__gt=Now()), name=name)
    if old.update(**beat_of(worker)):
        return True
    _, created = Heartbeat.objects.get_or_create(name=name, defaults=beat_of(worker))
    return created


# No `expires`: it would be judged by the worker's clock, which may be minutes ahead of beat's.
@shared_task(bind=True, priority=0)
def housekeeping(self):
    """Every 120 s: the heartbeat of beat, broker, worker and database, and what is overdue.

    A worker that was away for an hour finds thirty of these: all but the first do nothing.
    """
    if not leave_first_heartbeat(HOUSEKEEPING, self.request.hostname):
        return
    if sweeper.sweep_is_missing():
        queue_slice()
    prune()


def prune():
    """Delete what nobody will look at any more."""
    round_trips = Heartbeat.objects.filter(name__startswith=ROUND_TRIP)
    round_trips.filter(at__lt=Now() - timedelta(hours=1)).delete()
    for model in (PutAsideMessage, DeafWorker):
        model.objects.filter(at__lt=Now() - KEPT_FOR).delete()
        # However many came, the newest are enough to see what is wrong.
        newest = model.objects.order_by("-pk").values("pk")[:MOST_KEPT]
        model.objects.exclude(pk__in=newest).delete()


# Behind what waits: between two slices the other tasks have their turn.
@shared_task(bind=True, priority=settings.CELERY_TASK_DEFAULT_PRIORITY)
def sweep(self, ticket: str = ""):
    """Send the verification e-mails that are due: one slice, and another one if more are.

    Without a ticket it begins anew, unless a sweep is running already.
    """
    following = sweeper.sweep(claims.claimant(self.request.hostname), ticket)
    if following and not queue_slice(following):
        sweeper.end_chain(following)


def queue_slice(*ticket: str) -> bool:
    """Whether the broker took it; if not, the next housekeeping begins a new sweep."""
    try:
        sweep.delay(*ticket)
    except OperationalError as error:
        logger.warning("sweep not queued: %s", error)
        return False
    return True


@shared_task(bind=True, priority=0)
def answer(self, token: str):
    """The worker's half of the doctor's round trip, in the row that the doctor has made.

    A doctor that gave up has deleted it: a late answer leaves nothing.
    """
    row = Heartbeat.objects.filter(name=ROUND_TRIP + token)
    row.update(**beat_of(self.request.hostname))
