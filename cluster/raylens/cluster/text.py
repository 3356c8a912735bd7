"""The line of a long error text that says what went wrong."""

__all__ = ["last_line"]


def last_line(text: str, otherwise: str) -> str:
    """Return the last line that is not blank: Ray's errors are tracebacks, which end with the reason.

    Args:
        text: any number of lines.
        otherwise: what is returned for a blank text.
    """
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), otherwise)
