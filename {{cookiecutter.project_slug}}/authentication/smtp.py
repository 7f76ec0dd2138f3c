"""Django's SMTP backend, which also tells how far a conversation came before it ended."""

import smtplib

from django.core.mail.backends import smtp


class AnswerMissing(smtplib.SMTPServerDisconnected):
    """The whole message was handed over and no answer came: it may have been sent."""


class EndedEarly(smtplib.SMTPServerDisconnected):
    """The conversation ended before the recipient was named: the next would end there, too."""


class Stages:
    """Makes sendmail() of smtplib's classes raise AnswerMissing and EndedEarly."""

    recipient_was_named = False
    message_was_handed_over = False

    def sendmail(self, *args, **options):
        self.recipient_was_named = self.message_was_handed_over = False
        try:
            return super().sendmail(*args, **options)
        except Exception as error:  # a soft time limit can strike in here, too
            if self.message_was_handed_over:
                # smtplib makes -1 of an answer that is none.
                if isinstance(error, smtplib.SMTPDataError) and error.smtp_code > 0:
                    raise
                raise AnswerMissing(f"no answer after the message: {error}") from error
            ended = isinstance(error, OSError) and not isinstance(error, ANSWERS)
            if ended and not self.recipient_was_named:
                raise EndedEarly(f"ended before the recipient was named: {error}") from error
            raise

    def rcpt(self, *args, **options):
        self.recipient_was_named = True
        return super().rcpt(*args, **options)

    def send(self, s):
        super().send(s)
        # Commands are sent as str. The message is bytes, and goes out in one call.
        if isinstance(s, bytes) and s.endswith(b"\r\n.\r\n"):
            self.message_was_handed_over = True


ANSWERS = (
    smtplib.SMTPResponseException,
    smtplib.SMTPRecipientsRefused,
    smtplib.SMTPNotSupportedError,
)


class SMTP(Stages, smtplib.SMTP):
    pass


class SMTPOverSSL(Stages, smtplib.SMTP_SSL):
    pass


class EmailBackend(smtp.EmailBackend):
    @property
    def connection_class(self):
        return SMTPOverSSL if self.use_ssl else SMTP
