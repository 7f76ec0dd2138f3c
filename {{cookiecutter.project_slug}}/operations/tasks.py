"""Tasks that keep the service well and show that it is."""

import os
from datetime import timedelta

from celery import shared_task
from django.utils import timezone

from authentication import email_utils

from .models import Heartbeat

HOUSEKEEPING = "housekeeping"
ROUND_TRIP = "round trip "
ROUND_TRIP_TIMEOUT = 10  # seconds


def leave_heartbeat(name: str, worker: str):
    where = {"worker": f"{worker}, process {os.getpid()}"}
    Heartbeat.objects.update_or_create(name=name, defaults=where)


# A worker that was away for an hour needs one sweep, not thirty.
@shared_task(bind=True, priority=0, expires=120)
def housekeeping(self):
    """Every 120 s: the heartbeat of beat, broker, worker and database, and what is overdue."""
    leave_heartbeat(HOUSEKEEPING, self.request.hostname)
    email_utils.queue_pending()
    forgotten = timezone.now() - timedelta(hours=1)
    Heartbeat.objects.filter(name__startswith=ROUND_TRIP, at__lt=forgotten).delete()


@shared_task(bind=True, priority=0, expires=ROUND_TRIP_TIMEOUT)
def answer(self, token: str):
    """The worker's half of the doctor's round trip."""
    leave_heartbeat(ROUND_TRIP + token, self.request.hostname)
