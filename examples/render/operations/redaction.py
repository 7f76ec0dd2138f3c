"""What Django's error pages must not show."""

import re

from django.views.debug import SafeExceptionReporterFilter


class HideURLs(SafeExceptionReporterFilter):
    """Hide the settings that may hold a URL as well, since a URL may hold a password.

    Django's own filter goes by the names of settings, such as SECRET_KEY, and knows none of these.
    """

    hidden_settings = re.compile(
        SafeExceptionReporterFilter.hidden_settings.pattern + "|URL|RESULT_BACKEND|LOCATION",
        re.IGNORECASE,
    )
