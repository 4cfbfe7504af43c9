"""Greedy decoding speed at batch 1: ours against `transformers` and against a plain PyTorch loop.

    python benchmarks/generate.py                                     # the shipped pair
    python benchmarks/generate.py --primary FOLDER --secondary FOLDER # your own, written by te.to_hf

Two races: one token after another, and speculative decoding with γ = 4 (in `transformers`: assisted
generation) with the distilled secondary, which `transformers` can read too. All get the same weights and
the same prompts, unseen documentation and code, and must write the same text.
"""

import argparse
import itertools
import tempfile

import common
import numpy as np


def prompts(settings: dict):
    """The prompts, over and over, the same ones for everybody."""
    return itertools.cycle(settings["prompts"])


def ours(settings: dict):
    """`te.generate`."""
    import jax

    import tandem_edu as te

    model, texts = te.from_hf(settings["primary"]), prompts(settings)
    run = lambda: np.asarray(te.generate(model, next(texts), settings["new"]).tokens).tolist()
    return run, {"jax": jax.__version__}


def ours_speculative(settings: dict):
    """`te.speculate`."""
    import jax

    import tandem_edu as te

    pair, texts = [te.from_hf(settings[name]) for name in ("primary", "secondary")], prompts(settings)
    options = {"block_len": settings["block_len"], "max_block_len": settings["block_len"]}
    run = lambda: np.asarray(te.speculate(*pair, next(texts), settings["new"], **options).tokens).tolist()
    return run, {"jax": jax.__version__}


def torch_loop(settings: dict):
    """A plain PyTorch loop over a preallocated cache."""
    import torch
    import torch_llama

    torch.set_num_threads(settings["threads"])
    torch.set_flush_denormal(True)
    model, texts = torch_llama.load(settings["primary"]).eval(), prompts(settings)
    run = lambda: torch_llama.generate(model, next(texts), settings["new"])
    return run, {"torch": torch.__version__, "threads": torch.get_num_threads()}


def hugging_face(settings: dict, cache: str | None = None, assisted: bool = False):
    """`transformers`' own `generate`."""
    import torch
    import transformers

    torch.set_num_threads(settings["threads"])
    torch.set_flush_denormal(True)
    model, texts = _llama(settings["primary"]), prompts(settings)
    options = {"max_new_tokens": settings["new"], "do_sample": False}
    if cache:
        options["cache_implementation"] = cache
    if assisted:
        options["assistant_model"] = assistant = _llama(settings["secondary"])
        assistant.generation_config.num_assistant_tokens = settings["block_len"]
        assistant.generation_config.num_assistant_tokens_schedule = "constant"
        assistant.generation_config.assistant_confidence_threshold = 0.0

    @torch.inference_mode()
    def run():
        prompt = torch.tensor([next(texts)])
        written = model.generate(prompt, attention_mask=torch.ones_like(prompt), **options)
        return written[0, prompt.shape[1] :].tolist()

    facts = {"torch": torch.__version__, "transformers": transformers.__version__}
    return run, facts | {"threads": torch.get_num_threads()}


def _llama(folder: str):
    import transformers

    model = transformers.LlamaForCausalLM.from_pretrained(folder, dtype="float32").eval()
    model.generation_config.eos_token_id = None  # all write to the full length
    model.generation_config.pad_token_id = 0
    return model


PLAIN = {
    "ours": ours,
    "torch, plain loop": torch_loop,
    # Some hundred small products a token: a second thread may cost more than it brings.
    "torch, plain loop, 1 thread": lambda settings: torch_loop(settings | {"threads": 1}),
    "transformers, dynamic": lambda settings: hugging_face(settings, "dynamic"),
    "transformers, static": lambda settings: hugging_face(settings, "static"),
    "transformers, 1 thread": lambda settings: hugging_face(settings | {"threads": 1}, "dynamic"),
}
SPECULATIVE = {
    "ours, speculative": ours_speculative,
    "transformers, assisted": lambda settings: hugging_face(settings, assisted=True),
    "assisted, 1 thread": lambda settings: hugging_face(settings | {"threads": 1}, assisted=True),
}


def export_shipped_pair(folder: str) -> dict[str, str]:
    """Write the shipped primary and distilled secondary as `transformers` reads them."""
    import tandem_edu as te

    pair = te.load_pair()
    names = {"primary": f"{folder}/primary", "secondary": f"{folder}/secondary"}
    te.to_hf(pair.primary, names["primary"])
    te.to_hf(pair.distilled, names["secondary"])
    return names


def unseen_prompts(count: int) -> list[list[int]]:
    """Documentation and code, half and half, 48 tokens each."""
    import tandem_edu as te
    from tandem_edu.reproduce.prompts import prompts_of_kinds
    from tandem_edu.zoo.split import texts

    kinds = prompts_of_kinds(te.load_pair().tokenizer, texts(), "test", count // 2)
    return [prompt.tolist() for kind in ("documentation", "code") for prompt in kinds[kind]]


def different(raced: dict) -> int:
    """Tokens in which some contender's text is not the first one's."""
    texts = np.array([one["results"] for one in raced.values()])
    return int(np.sum(np.any(texts != texts[0], axis=0)))


def acceptance(settings: dict) -> dict:
    """What the primary made of the drafts; after the race, not during it."""
    from functools import partial

    import tandem_edu as te
    from tandem_edu.decode.trace import summarise

    pair = [te.from_hf(settings[name]) for name in ("primary", "secondary")]
    write = partial(te.speculate, *pair, max_new_tokens=settings["new"], block_len=settings["block_len"])
    found = summarise([write(prompt).trace for prompt in settings["prompts"]])
    return {name: found[name] for name in ("block_efficiency", "mean_accepted")}


def measure(title: str, names: list[str], settings: dict, repetitions: int) -> dict:
    """Race, print, return the record; `ours` is the first name."""
    raced = common.race(__file__, names, settings, repetitions)
    rows, odd = common.summary(raced, settings["new"], names[0]), different(raced)
    print(common.table(f"\n{title}: {settings['new']} new tokens", rows))
    print(f"tokens in which the texts differ: {odd} of {len(raced[names[0]]['results']) * settings['new']}")
    return {"title": title, "summary": rows, "different_tokens": odd, "raced": raced}


def main() -> None:
    """Read the options, race, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=20)
    parser.add_argument("--threads", type=int, default=common.cores())
    parser.add_argument("--primary", help="folder of a Llama checkpoint with the shipped tokenizer")
    parser.add_argument("--secondary", help="folder of a smaller one with the same vocabulary")
    parser.add_argument("--new", type=int, default=128, help="tokens to write")
    options = parser.parse_args()
    if bool(options.primary) != bool(options.secondary):
        parser.error("--primary and --secondary go together")
    settings = {"prompts": unseen_prompts(10), "new": options.new, "block_len": 4, "threads": options.threads}
    machine = common.say_machine()
    with tempfile.TemporaryDirectory() as folder:
        given = {"primary": options.primary, "secondary": options.secondary}
        settings |= given if options.primary else export_shipped_pair(folder)
        races = [
            measure("one by one", list(PLAIN), settings, options.repetitions),
            measure("speculative, γ = 4", list(SPECULATIVE), settings, options.repetitions),
        ]
        accepted = acceptance(settings)
    print("on these prompts:", accepted)
    record = {"machine": machine, "settings": settings, "acceptance": accepted, "races": races}
    print("written:", common.write("generate", record))


if __name__ == "__main__":
    common.serve(PLAIN | SPECULATIVE)
    main()
