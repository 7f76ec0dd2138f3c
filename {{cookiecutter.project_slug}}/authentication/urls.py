from django.contrib.auth.views import LoginView
from django.urls import path

from . import views

log_in = LoginView.as_view(extra_context={"heading": "Log in", "button": "Log in"})

urlpatterns = [
    path("login/", log_in, name="login"),
    path("register/", views.RegisterView.as_view(), name="register"),
    path("verify/<token>/", views.verify, name="verify"),
    path("resend/", views.ResendView.as_view(), name="resend"),
]
