from django import forms
from django.contrib.auth.forms import UserCreationForm

from .models import User


class RegistrationForm(UserCreationForm):
    """Makes a user who is inactive until the e-mail address is verified."""

    class Meta(UserCreationForm.Meta):
        model = User
        fields = ("username", "email")

    def save(self, commit: bool = True) -> User:
        self.instance.is_active = False
        return super().save(commit)


class ResendForm(forms.Form):
    email = forms.EmailField(label="E-mail address")
