"""An oracle from outside: `transformers`' assisted generation with the same pair and the same constant γ.

It writes the same greedy text, with as many calls of the primary as ours.
"""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "decode"))
from noisy_models import writer, writer_drafters, writer_trained

from tandem_edu.decode import speculate
from tandem_edu.zoo import to_hf

NEW = 120


def exported(llama, model, folder):
    to_hf(model, folder)
    reference = llama.from_pretrained(folder, dtype="float32").eval()
    reference.generation_config.eos_token_id = None  # both write to the full length
    reference.generation_config.pad_token_id = 0
    return reference


def assisted(primary, secondary, prompt, block_len: int) -> tuple[list[int], int]:
    """The new tokens, and how often the primary was called."""
    import torch

    calls = []
    hook = primary.register_forward_hook(lambda *_: calls.append(1))
    config = secondary.generation_config
    config.num_assistant_tokens, config.num_assistant_tokens_schedule = block_len, "constant"
    config.assistant_confidence_threshold = 0.0
    inputs = torch.tensor([list(prompt)])
    with torch.inference_mode():
        settings = {"attention_mask": torch.ones_like(inputs), "do_sample": False, "max_new_tokens": NEW}
        written = primary.generate(inputs, assistant_model=secondary, **settings)
    hook.remove()
    return written[0, len(prompt) :].tolist(), len(calls)


@pytest.mark.slow
@pytest.mark.parametrize("loss_trained", [False, True])
def test_the_same_text_with_as_many_calls(llama, loss_trained, tmp_path):
    primary, secondary = writer(512), writer_drafters(512)["plain"]
    if loss_trained:
        secondary = writer_trained("plain", 512)
    names = ((primary, "primary"), (secondary, "secondary"))
    references = [exported(llama, model, tmp_path / name) for model, name in names]
    accepted = 0
    for block_len in (1, 2, 3, 5, 8):
        for prompt in ([7, 3], [1, 2, 3, 40], [40, 4, 9, 9, 30, 2]):
            text, calls = assisted(*references, prompt, block_len)
            out = speculate(primary, secondary, prompt, NEW, block_len)
            assert np.asarray(out.tokens).tolist() == text
            assert out.trace.summary()["cycles"] == calls
            accepted += out.trace.summary()["accepted"]
    assert accepted > 100
