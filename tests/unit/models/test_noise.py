"""Random choices hang on the sample alone, and look random."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from raylens.models.noise import any_keys, dropped, keys_of_tokens, shuffled

CPU = torch.device("cpu")


def tokens(key_B: torch.Tensor, each: int, tower: int = 0) -> torch.Tensor:
    row = torch.arange(len(key_B)).repeat_interleave(each)
    return keys_of_tokens(key_B, row, torch.arange(each).repeat(len(key_B)), tower)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=8, unique=True), st.integers(0, 30))
def test_a_sample_has_the_same_noise_in_any_batch(keys: list[int], layer: int) -> None:
    together = dropped(torch.ones(len(keys) * 3, 7), tokens(torch.tensor(keys), 3), 0.5, layer)
    for number, key in enumerate(keys):
        alone = dropped(torch.ones(3, 7), tokens(torch.tensor([key]), 3), 0.5, layer)
        assert torch.equal(alone, together[3 * number : 3 * number + 3])
        order = shuffled(torch.tensor(keys), 11)[number]
        assert torch.equal(order, shuffled(torch.tensor([key]), 11)[0])
        assert order.sort().values.tolist() == list(range(11))


def test_the_share_is_met_and_the_rest_raised() -> None:
    keys = tokens(any_keys(200, CPU), 50)
    for share in (0.1, 0.5, 0.9):
        out = dropped(torch.ones(10_000, 64), keys, share, 0)
        zero = out == 0
        assert abs(zero.float().mean() - share) < 0.003
        assert torch.allclose(out[~zero], torch.tensor(1 / (1 - share)))
        # No token and no channel is dropped much more often than others: beyond this, one in a billion each.
        for dim, count in ((0, 10_000), (1, 64)):
            dropped_of = zero.sum(dim)
            assert dropped_of.max() <= binom.isf(1e-9, count, share)
            assert dropped_of.min() >= binom.ppf(1e-9, count, share)


def test_layers_towers_places_and_samples_differ() -> None:
    keys = torch.tensor([5, 6])
    base = dropped(torch.ones(8, 256), tokens(keys, 4), 0.5, 3) > 0
    others = [
        dropped(torch.ones(8, 256), tokens(keys, 4), 0.5, 4) > 0,
        dropped(torch.ones(8, 256), tokens(keys, 4, tower=1), 0.5, 3) > 0,
        base.roll(1, 0),
        base.roll(4, 0),
        base.roll(1, 1),
    ]
    for other in others:
        assert 0.42 < (base == other).float().mean() < 0.58  # as often alike as two coins


def test_orders_are_spread_over_all_places() -> None:
    first = shuffled(any_keys(20_000, CPU), 8)[:, 0]
    counts = torch.bincount(first, minlength=8)
    assert (counts - 2500).abs().max() < 5 * (20_000 * 7 / 64) ** 0.5
