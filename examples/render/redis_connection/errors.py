"""What a setting of the connection can get wrong."""


class InvalidSetting(ValueError):
    """A setting that cannot work or is too weak.

    Its text is one sentence for the operator: the variable, why it cannot work, and what to give
    instead. It shows a URL's host and the path of a file, and no other part of a value, since any
    other part may be a secret.
    """


class InvalidSettings(ValueError):
    """All settings of one connection that are invalid: `problems` has the sentence of each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems
