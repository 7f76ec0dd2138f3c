from django.contrib.auth.views import LoginView
from django.urls import path

from . import views

log_in = LoginView.as_view(extra_context={"heading": "Log in", "button": "Log in"})
reset_password = views.PasswordResetView.as_view()
choose_password = views.PasswordResetConfirmView.as_view()

urlpatterns = [
    path("register/", views.RegisterView.as_view(), name="register"),
    path("verify/<token>/", views.verify, name="verify"),
    path("resend/", views.ResendView.as_view(), name="resend"),
    # config/urls.py includes Django's own URLs after these. Their pages for the same three names
    # would have the look of the admin.
    path("login/", log_in, name="login"),
    path("password_reset/", reset_password, name="password_reset"),
    path("reset/<uidb64>/<token>/", choose_password, name="password_reset_confirm"),
]
