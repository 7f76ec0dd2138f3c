import re

from django.views.debug import SafeExceptionReporterFilter


class HideURLs(SafeExceptionReporterFilter):
    """Django's error pages hide passwords by the names of settings, but not those in URLs."""

    hidden_settings = re.compile(
        SafeExceptionReporterFilter.hidden_settings.pattern + "|URL|RESULT_BACKEND|LOCATION",
        re.IGNORECASE,
    )
