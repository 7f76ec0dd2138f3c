"""Views of this app."""

from django import forms
from django.contrib.auth.forms import UserCreationForm
from django.contrib.auth.models import User
from django.http import HttpResponse
from django.shortcuts import redirect, render

from .tasks import send_verification_email


class RegistrationForm(UserCreationForm):
    email = forms.EmailField()

    class Meta(UserCreationForm.Meta):
        model = User
        fields = ("username", "email")


def register(request) -> HttpResponse:
    form = RegistrationForm(request.POST or None)
    if form.is_valid():
        user = form.save()
        send_verification_email.delay(user.pk)
        return redirect("register")
    return render(request, "accounts/register.html", {"form": form})
