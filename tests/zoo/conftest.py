"""`transformers`, where it is installed."""

import warnings

import pytest


@pytest.fixture(scope="session")
def llama():
    """`transformers`' own Llama, read from a folder."""
    why = "needs torch and transformers: pip install 'tandem-edu[hf]'"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other people's imports
        pytest.importorskip("torch", reason=why)
        transformers = pytest.importorskip("transformers", reason=why)
    return transformers.LlamaForCausalLM
