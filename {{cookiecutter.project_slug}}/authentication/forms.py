from django import forms
from django.contrib.auth.forms import UserCreationForm

from .models import User


class RegistrationForm(UserCreationForm):
    class Meta(UserCreationForm.Meta):
        model = User
        fields = ("username", "email")

    def save(self, commit=True):
        self.instance.is_active = False
        return super().save(commit)


class ResendForm(forms.Form):
    email = forms.EmailField(label="E-mail address")
