"""The watched attention is the one the tandem computes."""

import jax.numpy as jnp
import numpy as np
import pytest

from tandem_edu.errors import BadInput
from tandem_edu.measure import attention_maps, primary_share
from tandem_edu.measure.attention import OWN, PRIMARY
from tandem_edu.model import Tandem
from tandem_edu.model.layers import rope_table
from tandem_edu.model.masks import block_starts

TOKENS = np.array([3, 1, 4, 1, 5, 9, 2, 6, 5], np.int32)


@pytest.fixture(scope="module", params=[False, True], ids=["the paper's", "own history"])
def tandem(request, tiny_primary, tiny_secondary):
    import jax

    key = jax.random.key(5)
    return Tandem(tiny_secondary, tiny_primary.config, "fused", own_history=request.param, key=key)


def test_the_weights_mix_values_to_the_models_own_stream(tandem, tiny_primary, monkeypatch):
    """The last layer's weights, applied to its values, lead to the model's logits."""
    from tandem_edu.measure import attention

    streams = []
    watched = attention._watched
    monkeypatch.setattr(
        attention, "_watched", lambda *a, **k: streams.append(watched(*a, **k)) or streams[-1]
    )
    maps = attention_maps(tiny_primary, tandem, TOKENS, 3, 1)
    text = jnp.asarray(TOKENS)
    _, hidden = tiny_primary(text, return_hidden=True)
    rope = rope_table(jnp.arange(len(TOKENS)), tandem.config.head_dim, tandem.config.rope_theta)
    x = tandem.secondary.embed(text)
    for block, mixed in zip(tandem.secondary.blocks, streams, strict=True):
        x = block.read(x, rope, lambda q, mixed=mixed: mixed)
    np.testing.assert_allclose(tandem.secondary.logits(x), tandem(text, hidden, 3, 1), rtol=1e-4, atol=1e-5)
    assert maps.shape == (tandem.config.n_layers, tandem.config.n_heads, 9, 2, 9)


def test_weights_are_a_distribution_over_what_the_mask_allows(tandem, tiny_primary):
    maps = attention_maps(tiny_primary, tandem, TOKENS, 3)
    np.testing.assert_allclose(maps.sum((-1, -2)), 1, rtol=1e-5)
    starts = np.asarray(block_starts(9, 3))
    for i in range(9):
        assert not maps[:, :, i, PRIMARY, starts[i] :].any()
        assert not maps[:, :, i, OWN, i + 1 :].any()
        assert maps[:, :, i, PRIMARY, : starts[i]].all()
        assert tandem.own_history or not maps[:, :, i, OWN, : starts[i]].any()


def test_the_first_block_has_nothing_of_the_primary(tandem, tiny_primary):
    share = primary_share(attention_maps(tiny_primary, tandem, TOKENS, 4))
    assert not share[:, :, :4].any() and (share[:, :, 4:] > 0).all()


def test_bad_input(tandem, tiny_primary):
    with pytest.raises(BadInput, match="block_len of at least 1"):
        attention_maps(tiny_primary, tandem, TOKENS, 0)
    with pytest.raises(BadInput, match="1 to"):
        attention_maps(tiny_primary, tandem, np.zeros(1000, np.int32), 2)
