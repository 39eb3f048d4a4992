"""Write the SST-2 subsets that the quality tables use, as TSV files: `python bench/quality_subsets.py OUTPUT_DIR`.

    sst2_10k_seed{0,1,2}.tsv   10,000 training rows each, drawn by that seed
    sst2_search_train.tsv      the training rows less the 2,000 held out, for searching defaults
    sst2_search_10k.tsv        10,000 of those
    sst2_search_heldout.tsv    the 2,000 rows held out (no text of theirs stands in the other two)

The dev set plays no part in any search: it is read once, by the final runs.
"""

import random
import sys
from pathlib import Path

SST2 = Path(__file__).resolve().parents[2] / "shared" / "data" / "sst2"


def write(path: Path, header: str, rows: list[str]) -> None:
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8", newline="\n")
    print(f"{path}: {len(rows):,} rows")


def main(output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    header, *rows = (SST2 / "train.tsv").read_text(encoding="utf-8").rstrip("\n").split("\n")
    for seed in range(3):
        write(output / f"sst2_10k_seed{seed}.tsv", header, random.Random(seed).sample(rows, 10_000))
    shuffled = random.Random("search").sample(rows, len(rows))
    heldout, rest = shuffled[:2_000], shuffled[2_000:]
    heldout_texts = {row.split("\t")[0].strip() for row in heldout}
    rest = [row for row in rest if row.split("\t")[0].strip() not in heldout_texts]
    write(output / "sst2_search_heldout.tsv", header, heldout)
    write(output / "sst2_search_train.tsv", header, rest)
    write(output / "sst2_search_10k.tsv", header, rest[:10_000])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
