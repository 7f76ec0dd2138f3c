# Makes @shared_task use this app in every process that imports the project.
from .celery import app as celery_app

__all__ = ["celery_app"]
