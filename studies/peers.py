"""Decoding and training against PyTorch and `transformers` (needs the extra `hf`).

All start from the same weights, a folder written by `te.to_hf`, and read the same tokens in float32. They
must write the same text and report the same losses, so that nobody is fast by doing something else.
"""

import dataclasses
import itertools
import tempfile
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import tandem_edu as te
from studies.plan import PRIMARY, SECONDARY
from studies.prompts import prompts_of_kinds
from studies.race import Worker, race
from studies.table import Lab, Row, Table
from studies.training import stepper
from tandem_edu.measure import spread

NEW_TOKENS, GAMMA = 128, 4
BATCH, SEQ = 8, 256
STEPS = {"primary": 1, "secondary": 6}
"""Optimiser steps in one repetition: about a second."""
ADAMW = {"learning_rate": 1e-3, "warmup_steps": 1000, "weight_decay": 0.1, "clip_norm": 1.0}

PLAIN = {
    "ours": ("ours", {}),
    "torch, plain loop": ("torch_loop", {}),
    # Some hundred small products a token: a second thread may cost more than it gains.
    "torch, plain loop, 1 thread": ("torch_loop", {"threads": 1}),
    "transformers, dynamic cache": ("transformers", {}),
    "transformers, static cache": ("transformers", {"cache": "static"}),
    "transformers, 1 thread": ("transformers", {"threads": 1}),
}
SPECULATIVE = {
    "ours, speculative": ("ours", {"speculates": True}),
    "transformers, assisted": ("transformers", {"speculates": True}),
    "transformers, assisted, 1 thread": ("transformers", {"speculates": True, "threads": 1}),
}
TRAINED = {
    "ours": ("our_training", {}),
    "torch": ("torch_training", {}),
    "torch, fused AdamW": ("torch_training", {"fused": True}),
}


def study(lab: Lab) -> list[Table]:
    """Decoding one token at a time and speculatively; a training step at the sizes of the shipped pair."""
    with tempfile.TemporaryDirectory() as folder:
        te.to_hf(lab.pair.primary, f"{folder}/primary")
        te.to_hf(lab.pair.distilled, f"{folder}/secondary")
        how = {"folder": folder, "prompts": _prompts(lab)}
        decoding = [
            row for ways in (PLAIN, SPECULATIVE) for row in _raced(ways, how, NEW_TOKENS, lab.repetitions)
        ]
    training = [row for size in STEPS for row in _training(size, lab.repetitions)]
    return [Table("peers-decoding", decoding), Table("peers-training", training)]


def ours(folder: str, prompts: list, speculates: bool = False) -> dict[str, Callable]:
    """`te.generate` or `te.speculate`."""
    primary, texts = te.from_hf(f"{folder}/primary"), itertools.cycle(prompts)
    if not speculates:
        return {"run": lambda: te.generate(primary, next(texts), NEW_TOKENS).tokens}
    both, how = (primary, te.from_hf(f"{folder}/secondary")), {"block_len": GAMMA, "max_draft_len": GAMMA}
    return {"run": lambda: te.speculate(*both, next(texts), NEW_TOKENS, **how).tokens}


def torch_loop(folder: str, prompts: list, threads: int | None = None) -> dict[str, Callable]:
    """A plain PyTorch loop over a preallocated cache."""
    from studies import torch_llama

    _torch(threads)
    model, texts = torch_llama.load(f"{folder}/primary").eval(), itertools.cycle(prompts)
    return {"run": lambda: torch_llama.generate(model, next(texts), NEW_TOKENS)}


def transformers(
    folder: str, prompts: list, cache: str = "dynamic", speculates: bool = False, threads: int | None = None
) -> dict[str, Callable]:
    """`transformers`' own `generate`; with `speculates`, its assisted generation."""
    torch = _torch(threads)
    from transformers import LlamaForCausalLM

    def load(name: str):
        model = LlamaForCausalLM.from_pretrained(f"{folder}/{name}", dtype="float32").eval()
        model.generation_config.eos_token_id = None  # all write to the full length
        model.generation_config.pad_token_id = 0
        return model

    model, texts = load("primary"), itertools.cycle(prompts)
    options: dict[str, Any] = {"max_new_tokens": NEW_TOKENS, "do_sample": False}
    if speculates:
        options["assistant_model"] = assistant = load("secondary")
        assistant.generation_config.num_assistant_tokens = GAMMA
        assistant.generation_config.num_assistant_tokens_schedule = "constant"
        assistant.generation_config.assistant_confidence_threshold = 0.0
    else:
        options["cache_implementation"] = cache

    @torch.inference_mode()
    def run():
        prompt = torch.tensor([next(texts)])
        written = model.generate(prompt, attention_mask=torch.ones_like(prompt), **options)
        return written[0, prompt.shape[1] :].tolist()

    return {"run": run}


def our_training(folder: str, steps: int) -> dict[str, Callable]:
    """`tandem_edu.train`'s own step."""
    step, batches = stepper(te.from_hf(folder), steps=10_000, **ADAMW), itertools.cycle(_batches())
    return {"run": lambda: [float(step(next(batches))) for _ in range(steps)]}


def torch_training(folder: str, steps: int, fused: bool = False) -> dict[str, Callable]:
    """The same in PyTorch: SDPA, cross_entropy, AdamW."""
    from studies import torch_llama

    torch = _torch(None)
    model = torch_llama.load(folder).train()
    decayed = [p for name, p in model.named_parameters() if "proj" in name]
    others = [p for name, p in model.named_parameters() if "proj" not in name]
    groups = [{"params": decayed, "weight_decay": ADAMW["weight_decay"]}, {"params": others}]
    adamw = torch.optim.AdamW(groups, betas=(0.9, 0.95), weight_decay=0.0, fused=fused)
    batches, count = itertools.cycle(torch.from_numpy(_batches()).long()), itertools.count(1)

    def step(batch) -> float:
        logits = model(batch[:, :-1])
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        adamw.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), ADAMW["clip_norm"])
        for group in adamw.param_groups:
            group["lr"] = ADAMW["learning_rate"] * next(count) / ADAMW["warmup_steps"]
        adamw.step()
        return loss.item()

    return {"run": lambda: [step(next(batches)) for _ in range(steps)]}


def _torch(threads: int | None):
    import torch

    if threads:
        torch.set_num_threads(threads)
    torch.set_flush_denormal(True)  # as XLA does
    return torch


def _prompts(lab: Lab) -> list[list[int]]:
    """Unseen documentation and code."""
    kinds = prompts_of_kinds(lab.pair.tokenizer, lab.parts, "test", 5)
    return [prompt.tolist() for kind in ("documentation", "code") for prompt in kinds[kind]]


def _batches() -> np.ndarray:
    """Random windows [8, batch, seq + 1], used in turn."""
    return np.random.default_rng(0).integers(0, PRIMARY.vocab_size, (8, BATCH, SEQ + 1)).astype(np.int32)


def _training(size: str, repetitions: int) -> list[Row]:
    """Of a model of the shipped one's sizes with random weights, and its own embedding."""
    config = PRIMARY if size == "primary" else dataclasses.replace(SECONDARY, shared_vocab=False)
    with tempfile.TemporaryDirectory() as folder:
        te.to_hf(te.Transformer(config, key=jax.random.key(0)), folder)
        rows = _raced(
            TRAINED, {"folder": folder, "steps": STEPS[size]}, STEPS[size] * BATCH * SEQ, repetitions
        )
    return [{"model": size, **row} for row in rows]


def _raced(ways: dict[str, Any], how: dict[str, Any], tokens: int, repetitions: int) -> list[Row]:
    """Tokens per second of each, our speed divided by theirs, and how their results differ from ours."""
    workers = {name: Worker(f"peers:{maker}", how | more) for name, (maker, more) in ways.items()}
    seconds, first = race(workers, repetitions)
    (our, *_) = ways
    results = {name: np.array(worker.results["run"]) for name, worker in workers.items()}
    return [
        {
            "": name,
            "tokens per second": spread(tokens / seconds[name, "run"]),
            "ours is faster, times": spread(seconds[name, "run"] / seconds[our, "run"]),
            "largest difference from ours": float(np.max(np.abs(results[name] - results[our]))),
            "first call, seconds": first[name, "run"],
        }
        for name in ways
    ]
