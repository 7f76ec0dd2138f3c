from django.urls import path

from . import views

urlpatterns = [
    path("register/", views.RegisterView.as_view(), name="register"),
    path("verify/<token>/", views.verify, name="verify"),
    path("resend/", views.ResendView.as_view(), name="resend"),
]
