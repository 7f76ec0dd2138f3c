from django.db import models


class Heartbeat(models.Model):
    """When a task last ran, and where: in the database, to be read when Redis is down."""

    name = models.CharField(max_length=80, primary_key=True)
    at = models.DateTimeField(auto_now=True)
    worker = models.CharField(max_length=255)

    def __str__(self):
        return f"{self.name} at {self.at:%Y-%m-%d %H:%M:%S} by {self.worker}"
