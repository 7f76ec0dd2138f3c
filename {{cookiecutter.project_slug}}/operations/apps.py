import logging
from importlib import import_module

from django.apps import AppConfig
from django.conf import settings


class OperationsConfig(AppConfig):
    name = "operations"

    def ready(self):
        import_module("{{ cookiecutter.project_slug }}.checks")
        if settings.REDIS.encrypted and not settings.REDIS.verified:
            logging.getLogger(__name__).warning(
                "REDIS_CERT_REQS=none: whoever is on the path to Redis can read the password"
            )
