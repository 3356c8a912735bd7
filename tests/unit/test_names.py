"""The names that runs, sweeps, models, clusters, jobs, keys and evaluation sets may have."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raylens.errors import ConfigError
from raylens.names import CLUSTER_NAME, EVALUATION_SET_NAME, RUN_NAME, SWEEP_NAME, NameRule

RULES = (RUN_NAME, SWEEP_NAME, CLUSTER_NAME, EVALUATION_SET_NAME)


@given(st.sampled_from(RULES), st.text("aA0._-/ \n\u00e9", max_size=6))
def test_a_name_fits_exactly_where_each_of_its_characters_does(rule: NameRule, name: str) -> None:
    first = string.digits + (string.ascii_lowercase if rule.lower_case else string.ascii_letters)
    wanted = bool(name) and name[0] in first and all(character in first + rule.marks for character in name)
    assert rule.fits(name) == wanted


@pytest.mark.parametrize("rule", RULES)
def test_a_name_may_be_as_long_as_the_rule_says(rule: NameRule) -> None:
    longest = "a" * rule.longest
    assert rule.check("name", longest) == rule.validated(longest) == longest
    with pytest.raises(ValueError, match=f"at most {rule.longest} "):
        rule.validated(f"{longest}a")
    with pytest.raises(ConfigError, match=f"^--id = '{longest}a': use at most {rule.longest} "):
        rule.check("--id", f"{longest}a")
