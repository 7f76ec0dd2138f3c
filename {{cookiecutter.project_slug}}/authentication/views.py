from django.contrib import messages
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse_lazy
from django.utils import timezone
from django.views.generic import FormView

from . import email_utils
from .forms import RegistrationForm, ResendForm
from .models import User


class RegisterView(FormView):
    template_name = "form.html"
    form_class = RegistrationForm
    extra_context = {"heading": "Register", "button": "Register"}
    success_url = reverse_lazy("login")

    @transaction.atomic
    def form_valid(self, form):
        user = form.save()
        email_utils.request_verification(user, self.request.get_host())
        messages.success(self.request, f"Check your e-mail: we are sending a link to {user.email}.")
        return super().form_valid(form)


class ResendView(FormView):
    template_name = "form.html"
    form_class = ResendForm
    extra_context = {"heading": "Ask for a new link", "button": "Send"}
    success_url = reverse_lazy("login")

    @transaction.atomic
    def form_valid(self, form):
        email = form.cleaned_data["email"]
        user = User.objects.filter(email__iexact=email, verified_at=None, is_active=False).first()
        if user:
            email_utils.request_verification(user, self.request.get_host())
        # The same words for every address: the page must not tell who has registered.
        messages.success(self.request, f"If {email} is to be confirmed, an e-mail is on its way.")
        return super().form_valid(form)


def verify(request: HttpRequest, token: str) -> HttpResponse:
    """Ask on GET and verify on POST, for mail scanners follow links."""
    user = email_utils.user_of(token)
    if user is None:
        messages.error(request, "This link is used or too old. Log in, or ask for a new one.")
        return redirect("resend")
    if request.method == "POST":
        User.objects.filter(pk=user.pk, verified_at=None).update(
            verified_at=timezone.now(), is_active=True
        )
        messages.success(request, "Your e-mail address is confirmed. You can log in now.")
        return redirect("login")
    texts = {"heading": "Confirm your e-mail address", "button": "Yes, confirm"}
    return render(request, "form.html", texts | {"intro": f"Is {user.email} your address?"})
