"""Put into a copy of the service as numbered/tasks.py: tasks that leave their number in a file."""

import os
import time
from pathlib import Path

from celery import shared_task
from kombu.transport import virtual

FOLDER = Path(os.environ["NUMBERED_FOLDER"])
DEAF = FOLDER / "deaf"


@shared_task
def numbered(number, seconds=0):
    note("started", number)
    time.sleep(seconds)
    note("done", number)


@shared_task(rate_limit="1/m")
def seldom(number):
    note("done", number)


def note(file, number):
    with (FOLDER / file).open("a") as lines:
        lines.write(f"{number}\n")


def can_consume(self):
    return not DEAF.exists() and hears(self)


# While that file exists, the worker fetches nothing and knows no reason.
hears = virtual.QoS.can_consume
virtual.QoS.can_consume = can_consume  # type: ignore[method-assign]
