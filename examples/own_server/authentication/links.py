"""The link in the verification e-mail."""

from datetime import timedelta

from django.conf import settings
from django.core import signing
from django.urls import reverse

from .models import User

SALT = "authentication.verify"
LINK_VALID_FOR = timedelta(days=1)


def verification_link(user: User, domain: str) -> str:
    """A link for this user and the e-mail address of now: another address needs another link."""
    token = signing.dumps([user.pk, user.email], salt=SALT)
    path = reverse("verify", args=[token])
    scheme = "https" if settings.SECURE_SSL_REDIRECT else "http"
    return f"{scheme}://{domain}{path}"


def user_of(token: str) -> User | None:
    """The unverified user whom the link was sent to, or None if it is forged, used or too old."""
    try:
        user_id, email = signing.loads(token, salt=SALT, max_age=LINK_VALID_FOR)
    except signing.BadSignature:
        return None
    return User.unverified().filter(pk=user_id, email=email).first()
