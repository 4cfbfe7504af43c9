"""`tandem-edu reproduce`: the paper's tables with ours beside them, in a folder of results.

Each stage writes its tables as JSON as soon as it has them; the page is made anew from all there are, so
stages may be run one at a time, in any order, and again.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from tandem_edu import show
from tandem_edu.errors import require
from tandem_edu.files import written_whole
from tandem_edu.measure import machine
from tandem_edu.reproduce.ablations import ABLATIONS, ablation_table
from tandem_edu.reproduce.adaptive import adaptive_table
from tandem_edu.reproduce.decoding import decoding_tables
from tandem_edu.reproduce.quality import position_table, quality_table
from tandem_edu.reproduce.readme import BEGIN, HEADLINE, RESULTS, refresh
from tandem_edu.reproduce.standalone import standalone_table
from tandem_edu.reproduce.table import Table, load_table, save_table
from tandem_edu.reproduce.weights import weights_table
from tandem_edu.reproduce.zoo import make_pair
from tandem_edu.zoo.shipped import FOLDER, Pair, load_pair
from tandem_edu.zoo.split import Texts, texts

MEASURES = ("quality", "decoding", "weights", "adaptive", "standalone")
STAGES = ("zoo", *MEASURES, *ABLATIONS)
TABLES = ("quality", "positions", "blocks", "speed", "weights", "adaptive", "standalone", *ABLATIONS)
"""In the order of the page."""
TITLE = "# Results"
"""How the page begins."""


def reproduce(stages: Sequence[str], out: Path, work: Path, say: Callable[[str], None] = print) -> Path:
    """Run `stages` and write their tables to `out`; trainings keep their checkpoints in `work`.

    Stage "zoo" makes the shipped pair anew; the others measure it. Returns the path of the page.
    In a folder named `results` beside a marked README, that gets its lines anew. Raises `BadInput` for an
    unknown stage, and where another README than ours stands in `out`.
    """
    for stage in stages:
        require(stage in STAGES, f"stages among {', '.join(STAGES)}", repr(stage), "pick some")
    ours = out / "README.md"
    free = not ours.exists() or ours.read_text("utf-8").startswith(TITLE)
    require(free, f"a folder of results in {out}", "one with a README of its own", "choose another --out")
    for stage in stages:
        say(stage)
        if stage == "zoo":
            make_pair(work / "zoo", FOLDER, say)
            continue
        for table in _tables(stage, out, work, say):
            save_table(table, out)
            say(table.markdown())
    if list(stages) == ["zoo"]:  # it measures nothing
        return FOLDER
    page = write_page(out)
    readme = out.resolve().parent / "README.md"
    whole = out.resolve().name == RESULTS and all((out / f"{name}.json").exists() for name in HEADLINE)
    if whole and readme.exists() and BEGIN in readme.read_text("utf-8"):
        refresh(readme, out)
    return page


def write_page(out: Path) -> Path:
    """The page of all tables in `out`, in Markdown."""
    found = [load_table(out, name) for name in TABLES if (out / f"{name}.json").exists()]
    facts = ", ".join(f"{name} {value}" for name, value in machine().items())
    head = (
        f"{TITLE}\n\nThe paper's tables (arXiv:2402.08644) and ours, made by `tandem-edu reproduce`. Our "
        f"models are a thousand times smaller and our processor is no TPU: what should agree is the "
        f"direction, not the size. Each table's JSON names its machine; this page was written on: "
        f"{facts}.\n\n"
    )
    path = out / "README.md"
    with written_whole(path) as part:
        part.write_text(head + "\n".join(table.markdown() for table in found), "utf-8")
    return path


def _tables(stage: str, out: Path, work: Path, say: Callable[[str], None]) -> list[Table]:
    pair, parts = load_pair(), texts()
    if stage == "quality":
        return [quality_table(pair, parts.test), position_table(pair, parts.test)]
    if stage == "decoding":
        return _decoding(pair, parts, out, say)
    if stage == "adaptive":
        return [adaptive_table(pair, parts, say=say)]
    if stage == "standalone":
        return [standalone_table(pair, parts, work / "rivals")]
    if stage == "weights":
        return [weights_table(pair, parts, work / "rivals", say=say)]
    return [ablation_table(stage, pair, parts, work / "ablations", say)]


def _decoding(pair: Pair, parts: Texts, out: Path, say: Callable[[str], None]) -> list[Table]:
    """The two tables, and a picture of tokens per call for each kind of prompt and mode."""
    (blocks, speed), found = decoding_tables(pair, parts, say=say)
    pictures = {}
    for name, comparison in found.items():
        picture = show.tokens_per_call(comparison)
        file = f"{name.replace(', ', '-').replace(' ', '-')}.png"
        with written_whole(out / file) as part:
            part.write_bytes(picture.png())
        pictures[file] = f"{name}. {picture.alt}"
    return [Table(**{**vars(blocks), "pictures": pictures}), speed]
