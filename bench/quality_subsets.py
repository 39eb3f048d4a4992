"""Write the SST-2 subsets that the quality tables use, as TSV files: `python bench/quality_subsets.py OUTPUT_DIR`.

    sst2_10k_seed{0..11}.tsv   10,000 training rows each, drawn by that seed
    sst2_6k_beside{0..11}.tsv  6,000 training rows that have no text in common with those
    sst2_search_train.tsv      the training rows less the 2,000 held out, for searching defaults
    sst2_search_10k.tsv        10,000 of those
    sst2_search_heldout.tsv    the 2,000 rows held out (no text of theirs stands in the other two)

The dev set plays no part in any search: it is read once, by the final runs.
"""

import random
import sys
from pathlib import Path

SST2 = Path(__file__).resolve().parents[2] / "shared" / "data" / "sst2"


NUM_SEEDS = 12


def without_texts_of(taken: list[str], rows: list[str]) -> list[str]:
    texts = {row.split("\t")[0].strip() for row in taken}
    return [row for row in rows if row.split("\t")[0].strip() not in texts]


def write(path: Path, header: str, rows: list[str]) -> None:
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8", newline="\n")
    print(f"{path}: {len(rows):,} rows")


def main(output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    header, *rows = (SST2 / "train.tsv").read_text(encoding="utf-8").rstrip("\n").split("\n")
    for seed in range(NUM_SEEDS):
        drawn = random.Random(seed).sample(rows, 10_000)
        write(output / f"sst2_10k_seed{seed}.tsv", header, drawn)
        beside = without_texts_of(drawn, rows)
        write(output / f"sst2_6k_beside{seed}.tsv", header, random.Random(f"held{seed}").sample(beside, 6_000))
    shuffled = random.Random("search").sample(rows, len(rows))
    heldout, rest = shuffled[:2_000], shuffled[2_000:]
    rest = without_texts_of(heldout, rest)
    write(output / "sst2_search_heldout.tsv", header, heldout)
    write(output / "sst2_search_train.tsv", header, rest)
    write(output / "sst2_search_10k.tsv", header, rest[:10_000])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
