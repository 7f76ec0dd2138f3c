"""Edits of a file, for tests that break something on purpose."""


def change(path, changes):
    """Replace texts in a file, as {old: new}. AssertionError unless each old one stands there once.

    So a test fails where the file has changed, instead of breaking nothing.
    """
    text = path.read_text("utf-8")
    for old, new in changes.items():
        assert text.count(old) == 1, f"{path.name} has changed: {old}"
        text = text.replace(old, new)
    path.write_text(text, "utf-8")
