"""URL configuration."""

from accounts.views import register
from django.urls import path

urlpatterns = [path("accounts/register/", register, name="register")]
