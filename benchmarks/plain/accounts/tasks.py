"""Tasks of this app."""

from celery import shared_task
from django.contrib.auth.models import User
from django.core.mail import send_mail


@shared_task
def send_verification_email(user_id):
    user = User.objects.get(pk=user_id)
    send_mail("Confirm your e-mail address", f"Hello {user}", "service@example.com", [user.email])
