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
    """A page with one form, which leads to the log-in page and says there what was done."""

    template_name = "form.html"
    success_url = reverse_lazy("login")


class RegisterView(FormPage, FormView):
    form_class = RegistrationForm
    extra_context = {"heading": "Register", "button": "Register"}
    success_message = "Please check your inbox: we are sending a link to %(email)s."

    def form_valid(self, form: RegistrationForm) -> HttpResponse:
        # This hashes the password, which takes long. It stands before the transaction, because on
        # SQLite nobody else can write during one.
        user = form.save(commit=False)
        with transaction.atomic():
            user.save()
            email_utils.request_verification(user, self.request.get_host())
        return super().form_valid(form)


class ResendView(FormPage, FormView):
    form_class = ResendForm
    extra_context = {"heading": "Ask for a new link", "button": "Send"}
    # The same words for every address, so that this page does not tell who has registered.
    success_message = (
        "If %(email)s still has to be confirmed, we are sending a new link to it."
        " You can ask for one link a minute."
    )

    @transaction.atomic
    def form_valid(self, form: ResendForm) -> HttpResponse:
        # An account that staff made was never promised an e-mail, and has nothing to verify.
        promised = User.unverified().filter(verificationemail__isnull=False)
        user = promised.filter(email__iexact=form.cleaned_data["email"]).first()
        if user is not None:
            email_utils.request_verification(user, self.request.get_host())
        return super().form_valid(form)


class PasswordResetView(FormPage, auth_views.PasswordResetView):
    extra_context = {"heading": "Reset your password", "button": "Send me a link"}
    success_message = "If there is an account for %(email)s, we are sending a link to that address."


class PasswordResetConfirmView(FormPage, auth_views.PasswordResetConfirmView):
    extra_context = {"heading": "Choose a new password", "button": "Save"}
    success_message = "Your password has been changed. You can log in now."


def verify(request: HttpRequest, token: str) -> HttpResponse:
    """The page that the link leads to. It asks on GET and verifies on POST.

    Mail scanners open links, so a GET must not verify anybody's address (D-36).
    """
    user = links.user_of(token)
    if user is None:
        messages.error(request, "This link has been used already, or it is too old.")
        return redirect("resend")
    if request.method == "POST":
        # Of two requests at the same moment, only one finds the user unverified.
        User.unverified().filter(pk=user.pk).update(verified_at=timezone.now(), is_active=True)
        messages.success(request, "Your e-mail address is confirmed. You can log in now.")
        return redirect("login")
    context = {
        "heading": "Confirm your e-mail address",
        "intro": f"Is {user.email} your e-mail address?",
        "button": "Yes, confirm it",
    }
    return render(request, "form.html", context)
