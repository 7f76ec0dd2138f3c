from django.db import models
from django.db.models.functions import Now


class Heartbeat(models.Model):
    """When a task last ran, and where: in the database, to be read when Redis is down.

    `at` is the database's clock, like everything that it is compared with. `clock` is the worker's,
    to show that the two differ.
    """

    name = models.CharField(max_length=80, primary_key=True)
    at = models.DateTimeField(db_default=Now())
    worker = models.CharField(max_length=255, default="", blank=True)
    clock = models.FloatField(null=True)  # seconds since 1970

    def __str__(self):
        return f"{self.name} at {self.at:%Y-%m-%d %H:%M:%S} by {self.worker}"


class PutAsideMessage(models.Model):
    """A message that no task could be made of, so that its queue goes on (put_aside.py)."""

    at = models.DateTimeField(db_default=Now())
    worker = models.CharField(max_length=255)
    queue = models.CharField(max_length=255)
    reason = models.CharField(max_length=500)
    headers = models.TextField()  # the first 4 KiB, like the body
    body = models.TextField()

    def __str__(self):
        return f"from {self.queue}: {self.reason}"


class DeafWorker(models.Model):
    """A worker that took no tasks although some waited, and ended itself (watchdog.py)."""

    at = models.DateTimeField(db_default=Now())
    worker = models.CharField(max_length=255)
    seen = models.CharField(max_length=255)

    def __str__(self):
        return f"{self.worker} at {self.at:%Y-%m-%d %H:%M:%S}: {self.seen}"
