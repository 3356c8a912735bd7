"""What a long complaint is about."""

__all__ = ["last_line"]


def last_line(text: str, otherwise: str) -> str:
    """The last line that says something: Ray answers with tracebacks, which begin with where and end with why.

    Args:
        text: of any number of lines.
        otherwise: what stands for a text that says nothing.
    """
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), otherwise)
