from django.contrib.auth.views import LoginView
from django.urls import path

from . import views

log_in = LoginView.as_view(extra_context={"heading": "Log in", "button": "Log in"})
confirm = views.PasswordResetConfirmView.as_view()

urlpatterns = [
    path("register/", views.RegisterView.as_view(), name="register"),
    path("verify/<token>/", views.verify, name="verify"),
    path("resend/", views.ResendView.as_view(), name="resend"),
    # Before Django's own, whose pages are the admin's.
    path("login/", log_in, name="login"),
    path("password_reset/", views.PasswordResetView.as_view(), name="password_reset"),
    path("reset/<uidb64>/<token>/", confirm, name="password_reset_confirm"),
]
