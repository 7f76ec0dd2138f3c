import logging
import re

from django.views.debug import SafeExceptionReporterFilter

from operations.causes import without_arguments


class HideArguments(logging.Formatter):
    """Redis repeats the arguments of a command it does not know: HELLO has the password."""

    def format(self, record):
        return without_arguments(super().format(record))


class HideURLs(SafeExceptionReporterFilter):
    """Django's error pages hide passwords by the names of settings, but not those in URLs."""

    hidden_settings = re.compile(
        SafeExceptionReporterFilter.hidden_settings.pattern + "|URL|RESULT_BACKEND|LOCATION",
        re.IGNORECASE,
    )
