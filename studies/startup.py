"""From a new process to the first text: `import tandem_edu; te.load_pair(); te.speculate(...)`.

`te.speculate` returns its 64 tokens together, so the first token is all of them. Python's bytecode and the
files are in the operating system's cache.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import pairwise

STAGES = ("import", "load", "compile and write", "write again")


def study(lab) -> list:
    """Three kinds of new processes in turns: cold, very first, warm. The first of each does not count."""
    from studies.table import Table
    from tandem_edu.measure import spread

    with tempfile.TemporaryDirectory() as folder:
        kinds = {"cold": {}, "very first": {}, "warm": {"JAX_COMPILATION_CACHE_DIR": folder}}
        taken = {kind: [] for kind in kinds}
        for _ in range(1 + (lab.repetitions + 1) // 2):
            for kind, extra in kinds.items():
                if kind == "very first":
                    extra = {"XDG_CACHE_HOME": tempfile.mkdtemp(dir=folder)}  # of the kernels' library
                taken[kind].append(_new_process(extra))
    rows = [
        {"": kind, **{stage: spread([turn[stage] for turn in turns[1:]]) for stage in turns[0]}}
        for kind, turns in taken.items()
    ]
    return [Table("startup", rows)]


def _new_process(extra: dict[str, str]) -> dict[str, float]:
    """Seconds of its stages. The user's own settings of JAX's cache are left out."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    always = dict.fromkeys(("MIN_ENTRY_SIZE_BYTES", "MIN_COMPILE_TIME_SECS"), "0")
    cache = {f"JAX_PERSISTENT_CACHE_{name}": value for name, value in always.items()}
    code = "import studies.startup; studies.startup.first_text()"
    began = time.perf_counter()
    run = subprocess.run(
        [sys.executable, "-c", code], env=kept | cache | extra, stdout=subprocess.PIPE, text=True, check=True
    )
    stages = json.loads(run.stdout.splitlines()[-1])
    whole = time.perf_counter() - began - stages["write again"]
    return stages | {"whole process, writing once": whole}


def first_text() -> None:
    """Print the seconds of each stage; nothing of JAX has been imported before."""
    marks = [time.perf_counter()]
    import tandem_edu as te

    marks.append(time.perf_counter())
    pair = te.load_pair()
    marks.append(time.perf_counter())
    prompt = pair.tokenizer.encode("Return the number of").ids
    for _ in range(2):
        te.speculate(pair.primary, pair.tandem, prompt, 64).tokens.tolist()
        marks.append(time.perf_counter())
    stages = (end - start for start, end in pairwise(marks))
    print(json.dumps(dict(zip(STAGES, stages, strict=True))))
