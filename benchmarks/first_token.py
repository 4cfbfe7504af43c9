"""One new process, from nothing to text: started by `startup.py`, which reads the JSON it prints.

    python benchmarks/first_token.py THREADS

Only what the interpreter brings along is imported before the clock starts.
"""

import json
import os
import sys
import time


def main() -> None:
    """Bind to the cores, then time each stage of a first use."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(sys.argv[1])])
    marks = [time.perf_counter()]
    import tandem_edu as te

    marks.append(time.perf_counter())
    pair = te.load_pair()
    marks.append(time.perf_counter())
    prompt = pair.tokenizer.encode("Return the number of").ids
    tokens = [te.speculate(pair.primary, pair.tandem, prompt, 64).tokens.tolist()]
    marks.append(time.perf_counter())
    tokens.append(te.speculate(pair.primary, pair.tandem, prompt, 64).tokens.tolist())
    marks.append(time.perf_counter())
    stages = ("import", "load", "compile and first text", "the same text again")
    taken = {name: end - start for name, start, end in zip(stages, marks, marks[1:], strict=False)}
    print(
        json.dumps({"seconds": taken, "to_first_text": marks[3] - marks[0], "same": tokens[0] == tokens[1]})
    )


if __name__ == "__main__":
    main()
