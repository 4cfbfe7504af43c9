"""Training speed: one step (forward, backward, clipping, AdamW), ours against plain PyTorch.

    python benchmarks/train_step.py                   # 6 layers x 256, and 2 x 128; 8 x 256 tokens a step
    python benchmarks/train_step.py --repetitions 3   # a quick look

All start from the same weights and read the same random tokens with the same hyperparameters; the losses
they report on the way are compared, so that nobody is fast by doing something else.
"""

import argparse
import shutil
import tempfile

import common
import numpy as np

SIZES = {
    "primary 8 x 256": {"d_model": 256, "n_layers": 8, "n_heads": 8, "n_kv_heads": 2, "d_ff": 512},
    "secondary 1 x 256": {"d_model": 256, "n_layers": 1, "n_heads": 8, "n_kv_heads": 2, "d_ff": 256},
}
"""The shipped pair's; here the secondary has a vocabulary of its own, which is trained too."""
STEPS = {"primary 8 x 256": 1, "secondary 1 x 256": 6}
"""Optimiser steps in one repetition: enough for about a second."""


def batches(settings: dict) -> np.ndarray:
    """Random windows [8, batch, seq + 1], used in turn."""
    random = np.random.default_rng(settings["seed"])
    shape = (8, settings["batch"], settings["seq"] + 1)
    return random.integers(0, settings["vocab"], shape).astype(np.int32)


def ours(settings: dict):
    """`tandem_edu.train`'s own step."""
    import jax

    from tandem_edu.train.losses import Objective
    from tandem_edu.train.recipes import Recipe
    from tandem_edu.train.step import init_state, split, train_step
    from tandem_edu.zoo import from_hf

    fields = {name: settings[name] for name in ("learning_rate", "warmup_steps", "weight_decay", "clip_norm")}
    recipe = Recipe("benchmark", steps=10 * settings["warmup_steps"], **fields)
    model, data = from_hf(settings["folder"]), batches(settings)
    _, rest = split(model)
    state, done = init_state(model, recipe), 0

    def run():
        nonlocal state, done
        losses = []
        for _ in range(settings["steps"]):
            batch = jax.numpy.asarray(data[done % len(data)])
            (state,), (loss,) = train_step(((rest,), None, batch), (state,), (recipe,), (Objective(),))
            losses.append(loss)
            done += 1
        jax.block_until_ready(state)
        return [float(loss) for loss in losses]

    return run, {"jax": jax.__version__, "devices": [str(device) for device in jax.devices()]}


def torch_step(settings: dict, fused: bool = False, compiled: bool = False):
    """The same in PyTorch: SDPA, cross_entropy, AdamW."""
    import torch
    import torch.nn.functional as F
    import torch_llama

    torch.set_num_threads(settings["threads"])
    torch.set_flush_denormal(True)  # as XLA does
    model = torch_llama.load(settings["folder"]).train()
    decayed = [p for name, p in model.named_parameters() if "proj" in name]
    others = [p for name, p in model.named_parameters() if "proj" not in name]
    groups = [{"params": decayed, "weight_decay": settings["weight_decay"]}, {"params": others}]
    adamw = torch.optim.AdamW(groups, betas=(0.9, 0.95), weight_decay=0.0, fused=fused)
    forward = torch.compile(model) if compiled else model
    data, done = torch.from_numpy(batches(settings)).long(), 0

    def step(batch):
        logits = forward(batch[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        adamw.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings["clip_norm"])
        for group in adamw.param_groups:
            group["lr"] = settings["learning_rate"] * (done + 1) / settings["warmup_steps"]
        adamw.step()
        return loss.detach()

    def run():
        nonlocal done
        losses = []
        for _ in range(settings["steps"]):
            losses.append(step(data[done % len(data)]))
            done += 1
        return [float(loss) for loss in losses]

    return run, {"torch": torch.__version__, "threads": torch.get_num_threads()}


CONTENDERS = {
    "ours": ours,
    "torch": torch_step,
    "torch, fused AdamW": lambda settings: torch_step(settings, fused=True),
    "torch.compile": lambda settings: torch_step(settings, fused=True, compiled=True),
}


def export(size: dict, settings: dict, folder: str) -> None:
    """Write the weights that everybody starts from."""
    import jax

    from tandem_edu.model import Transformer, TransformerConfig
    from tandem_edu.zoo import to_hf

    config = TransformerConfig(vocab_size=settings["vocab"], max_len=settings["seq"], **size)
    to_hf(Transformer(config, key=jax.random.key(settings["seed"])), folder)


def disagreement(raced: dict) -> float:
    """Largest difference between two contenders' losses at the same step."""
    losses = np.array([one["results"] for one in raced.values()])
    return float(np.max(np.ptp(losses, axis=0)))


def measure(size: str, settings: dict, names: list[str], repetitions: int) -> dict:
    """Race at one size; print it, return the record."""
    settings = settings | {"steps": STEPS[size]}
    with tempfile.TemporaryDirectory() as folder:
        export(SIZES[size], settings, folder)
        raced = common.race(__file__, names, settings | {"folder": folder}, repetitions)
    tokens = settings["steps"] * settings["batch"] * settings["seq"]
    rows, gap = common.summary(raced, tokens, "ours"), disagreement(raced)
    print(common.table(f"\n{size}, {settings['batch']} x {settings['seq']} tokens a step", rows))
    print(f"largest difference of losses at the same step: {gap:.1e}")
    return {"size": size, "settings": settings, "summary": rows, "loss_gap": gap, "raced": raced}


def main() -> None:
    """Read the options, race, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--threads", type=int, default=common.cores())
    parser.add_argument("--compile", action="store_true", help="race torch.compile as well")
    parser.add_argument("--size", choices=SIZES, action="append")
    options = parser.parse_args()
    if options.compile and not any(map(shutil.which, ("g++", "clang++", "c++"))):
        parser.error("torch.compile needs a C++ compiler, and there is none here: leave --compile out")
    names = [name for name in CONTENDERS if options.compile or name != "torch.compile"]
    settings = {"vocab": 1024, "batch": 8, "seq": 256, "seed": 0, "threads": options.threads}
    settings |= {"learning_rate": 1e-3, "warmup_steps": 1000, "weight_decay": 0.1, "clip_norm": 1.0}
    machine = common.say_machine()
    sizes = [measure(size, settings, names, options.repetitions) for size in options.size or SIZES]
    print("written:", common.write("train_step", {"machine": machine, "sizes": sizes}))


if __name__ == "__main__":
    common.serve(CONTENDERS)
    main()
