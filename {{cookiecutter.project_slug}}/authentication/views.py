from django.contrib import messages
from django.contrib.auth import views as auth_views
from django.contrib.messages.views import SuccessMessageMixin
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse_lazy
from django.utils import timezone
from django.views.generic import FormView

from . import email_utils, links
from .forms import RegistrationForm, ResendForm
from .models import User


class FormPage(SuccessMessageMixin):
    template_name = "form.html"
    success_url = reverse_lazy("login")


class RegisterView(FormPage, FormView):
    form_class = RegistrationForm
    extra_context = {"heading": "Register", "button": "Register"}
    success_message = "Check your e-mail: we are sending a link to %(email)s."

    def form_valid(self, form):
        # This hashes the password, which takes long: not while others wait for the transaction.
        user = form.save(commit=False)
        with transaction.atomic():
            user.save()
            email_utils.request_verification(user, self.request.get_host())
        return super().form_valid(form)


class ResendView(FormPage, FormView):
    form_class = ResendForm
    extra_context = {"heading": "Ask for a new link", "button": "Send"}
    # The same words for every address: this page does not tell who has registered.
    success_message = "If %(email)s has to be confirmed, we send a link, at most one a minute."

    @transaction.atomic
    def form_valid(self, form):
        # An account that staff made was promised no e-mail, and has nothing to verify.
        waiting = User.unverified().filter(verificationemail__isnull=False)
        if user := waiting.filter(email__iexact=form.cleaned_data["email"]).first():
            email_utils.request_verification(user, self.request.get_host())
        return super().form_valid(form)


class PasswordResetView(FormPage, auth_views.PasswordResetView):
    extra_context = {"heading": "Reset your password", "button": "Send me a link"}
    success_message = "If somebody has registered with %(email)s, we send a link to it."


class PasswordResetConfirmView(FormPage, auth_views.PasswordResetConfirmView):
    extra_context = {"heading": "Choose a new password", "button": "Save"}
    success_message = "Your password is changed. You can log in now."


def verify(request: HttpRequest, token: str) -> HttpResponse:
    """Ask on GET and verify on POST, for mail scanners follow links."""
    user = links.user_of(token)
    if user is None:
        messages.error(request, "This link was used already, or is too old.")
        return redirect("resend")
    if request.method == "POST":
        done = {"verified_at": timezone.now(), "is_active": True}
        User.unverified().filter(pk=user.pk).update(**done)
        messages.success(request, "Your e-mail address is confirmed. You can log in now.")
        return redirect("login")
    texts = {"heading": "Confirm your e-mail address", "button": "Yes, confirm"}
    return render(request, "form.html", texts | {"intro": f"Is {user.email} your address?"})
