import uuid

from django.db import models
from django.db.models.functions import Now


class Heartbeat(models.Model):
    """When a task last ran, and where.

    It is in the database, where it can be read while Redis is down. `at` is by the clock of the
    database, like everything that it is compared with.
    """

    name = models.CharField(max_length=80, primary_key=True)
    at = models.DateTimeField(db_default=Now())
    worker = models.CharField(max_length=255, default="", blank=True)

    def __str__(self) -> str:
        return f"{self.name} at {self.at:%Y-%m-%d %H:%M:%S} by {self.worker}"


class RoundTrip(models.Model):
    """A question of the doctor to a worker, and the answer.

    The doctor makes the row and sends its token through a queue. The worker that gets the token
    fills in its name and its clock. The doctor deletes the row when it has read it or has given up,
    so an answer that comes too late leaves nothing.
    """

    token = models.UUIDField(primary_key=True, default=uuid.uuid4)
    queue = models.CharField(max_length=255)
    asked_at = models.DateTimeField(db_default=Now())
    worker = models.CharField(max_length=255, default="", blank=True)
    clock = models.FloatField(null=True)  # seconds since 1970, by the clock of the worker

    def __str__(self) -> str:
        return f"{self.queue}: {self.worker or 'no answer yet'}"


class PutAsideMessage(models.Model):
    """A message that no task could be made of, so that its queue goes on (put_aside.py)."""

    at = models.DateTimeField(db_default=Now())
    worker = models.CharField(max_length=255)
    queue = models.CharField(max_length=255)
    reason = models.CharField(max_length=500)
    headers = models.TextField()  # the first 4 KiB, like the body
    body = models.TextField()

    def __str__(self) -> str:
        return f"from {self.queue}: {self.reason}"


class DeafWorker(models.Model):
    """A worker that took no tasks although some waited, and ended itself (watchdog.py)."""

    at = models.DateTimeField(db_default=Now())
    worker = models.CharField(max_length=255)
    detail = models.CharField(max_length=255)

    def __str__(self) -> str:
        return f"{self.worker} at {self.at:%Y-%m-%d %H:%M:%S}: {self.detail}"
