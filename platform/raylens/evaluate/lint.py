"""What is wrong with a set of prompts, in the words of the tokenizer that will read them."""

from collections.abc import Sequence

from raylens.evaluate.labelled import ClassList
from raylens.inputs import Tokenizer

__all__ = ["lint_prompts"]

SHOWN = 3


def lint_prompts(classes: ClassList, tokenizer: Tokenizer, context: int) -> tuple[str, ...]:
    """Complaints about prompts that do not say what they seem to.

    Truncated prompts lose their end, which is often the class name; classes whose prompts have become the same
    token ids can never be told apart.
    """
    prompts = classes.prompts()
    flat = [prompt for of_class in prompts for prompt in of_class]
    ids_PT, truncated_P = tokenizer(flat, context)
    complaints = []
    cut = [prompt for prompt, truncated in zip(flat, truncated_P, strict=True) if truncated]
    if cut:
        complaints.append(
            f"{len(cut)} of {len(flat)} prompts are longer than the context of {context} tokens and were truncated: "
            f"{_listed(cut)}"
        )
    rows = ids_PT.reshape(len(prompts), -1)
    by_ids: dict[bytes, list[str]] = {}
    for name, row in zip(classes.classes, rows, strict=True):
        by_ids.setdefault(row.tobytes(), []).append(name)
    complaints += [
        f"classes {_listed(names)} have the same token ids in every prompt: their images all count as wrong"
        for names in by_ids.values()
        if len(names) > 1
    ]
    return tuple(complaints)


def _listed(items: Sequence[str]) -> str:
    shown = ", ".join(repr(item) for item in items[:SHOWN])
    return shown if len(items) <= SHOWN else f"{shown} and {len(items) - SHOWN} more"
