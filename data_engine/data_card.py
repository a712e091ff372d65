# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""The data card of a built set: a README that says what is in it, from where, on which terms, and what was left out.

Its front matter is what the Hub and `datasets.load_dataset` read, so the folder can be loaded and uploaded as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml

from data_engine.records import SPLITS
from data_engine.tables import markdown_table


@dataclass(frozen=True)
class SourceFacts:
    """What the card says about a source.

    Attributes:
        rows: rows or samples that were read.
        broken: rows that could not be used.
        duplicates: records left out because an earlier one says the same.
        leaks: records left out because a benchmark's test split holds them.
        used: records that ended up in the set.
    """

    name: str
    title: str
    homepage: str
    license: str
    rows: int
    broken: int
    duplicates: int
    leaks: int
    used: int


def _front_matter(files: dict[str, str], licenses: list[str], languages: list[str]) -> str:
    fields = {
        "license": licenses[0].lower() if len(licenses) == 1 else "other",
        "language": languages,
        "task_categories": ["visual-question-answering", "image-text-to-text"],
        "tags": ["medical"],
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": split, "path": files[split]} for split in SPLITS if split in files],
            }
        ],
    }
    return yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)


def data_card(
    name: str,
    summary: dict[str, Any],
    sources: list[SourceFacts],
    files: dict[str, str],
    benchmarks: list[str],
    seed: int,
) -> str:
    """The card as Markdown.

    Args:
        name: title of the set.
        summary: of `statistics.summarise`, over all splits.
        sources: one entry each.
        files: split -> pattern of its files.
        benchmarks: names of the test splits that the leak check compared with.
        seed: of the mixture.
    """
    counts = markdown_table(
        ["split", "records", "files"],
        [[split, f"{summary['split'].get(split, 0):,}", f"`{files[split]}`"] for split in SPLITS if split in files],
    )
    table = markdown_table(
        ["source", "licence", "rows read", "broken", "duplicates", "leaks", "records used"],
        [
            [f"[{one.title}]({one.homepage})" if one.homepage else one.title, one.license]
            + [f"{value:,}" for value in (one.rows, one.broken, one.duplicates, one.leaks, one.used)]
            for one in sources
        ],
    )
    kinds = ", ".join(f"{count:,} {kind}s" for kind, count in summary["media"].items())
    against = ", ".join(benchmarks) if benchmarks else "no benchmark (none was given)"
    return f"""---
{_front_matter(files, sorted(summary["license"]), sorted(summary["language"]))}---

# {name}

{summary["records"]:,} conversations about {kinds}, of {len(summary["modality"])} modalities and {len(summary["task"])}
tasks. Built by `python -m data_engine.build`, seed {seed}. For research; no part of it is medical advice.

{counts}

Each record: `id`, `dimension` (2d, 3d, video), `modality`, `task`, `media` (type, path beside this file, spacing in
mm), `conversations` (role, content), `source`, `license`, `split`, `language`, `version`.

## Sources

Each record keeps its source's terms; whoever uses a source accepts them.

{table}

Broken rows are listed with their reasons in `broken.jsonl`, duplicates in `duplicates.jsonl`, leaks in `leaks.jsonl`.
Training and validation were compared with the test splits of {against}.

## Figures

![Records by modality and task](figures/modality_by_task.png)

![Dimensions, modalities, tasks](figures/shares.png)

![Lengths](figures/lengths.png)
"""
