"""The WSGI callable, `application`."""

import gc
import os

from django.conf import settings
from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

application = get_wsgi_application()
settings.REDIS.log()

# What is here now stays: a collection of garbage need not look through it again.
gc.collect()
gc.freeze()
