"""Prompts and class names of zero-shot classification."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raylens.errors import ConfigError
from raylens.inputs import CAPTION_TEMPLATES, Tokenizer, check_class_names, fill_templates


@given(st.lists(st.text(max_size=10), max_size=5))
def test_each_name_stands_in_each_template(names: list[str]) -> None:
    """Even a name that is itself a placeholder is set in once, as it is."""
    filled = fill_templates(names, CAPTION_TEMPLATES)
    assert filled == [
        [f"a photo of a {name}.", f"a picture of a {name}.", f"an image of a {name}.", name] for name in names
    ]


@pytest.mark.parametrize("template", ["a photo", "{} and {}", "a photo of a {name}", ""])
def test_a_template_has_one_place_for_the_name(template: str) -> None:
    with pytest.raises(ConfigError) as caught:
        fill_templates(["cat"], ["a {}", template])
    assert f"templates: {template!r} must have '{{}}' exactly once" in str(caught.value)


def test_no_template_is_refused() -> None:
    with pytest.raises(ConfigError, match="templates: give at least one"):
        fill_templates(["cat"], [])


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([], r"classes = \[\]: a classification needs at least two"),
        (["cat"], r"classes = \['cat'\]: a classification needs at least two"),
        (["cat", " "], "an empty class name"),
        (["cat", "dog", "cat"], "'cat' occurs twice"),
        (["cat", " CAT"], "' CAT' occurs twice"),
        (["hot  dog", "hot dog"], "'hot dog' occurs twice"),
        (["café", "cafe\u0301"], "occurs twice"),
    ],
)
def test_classes_that_cannot_be_told_apart_are_refused(names: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check_class_names(names)


TOKENIZER = Tokenizer.train(["a photo of a cat", "a photo of a dog"], 600)
NAMES = st.text(st.characters(min_codepoint=32, max_codepoint=0x24F), max_size=4)


@given(st.lists(NAMES, min_size=2, max_size=4))
def test_names_that_pass_have_ids_of_their_own(names: list[str]) -> None:
    try:
        check_class_names(names)
    except ConfigError:
        return
    ids, _ = TOKENIZER(names, 40)
    assert len({tuple(row) for row in ids.tolist()}) == len(names)
