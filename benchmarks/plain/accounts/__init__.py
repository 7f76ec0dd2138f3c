"""Registration, with an e-mail that a task sends."""
