# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Compares pruning rules: at the same number of kept tokens, which findings survive in what each of them shows?

    python -m benchmarks.pruning --json pruning.json [--clips DIR] [--figures DIR]

Without `--clips` the clips are those of packages that the tests need: the MNI152 T1 average (nilearn), one person's MR
scan (nibabel) and an echocardiogram (pydicom). With it they are volumes and pictures of your own: a folder with
`volumes.jsonl` (`file`, and `lesions` where a mask outlines them) and `images.jsonl` (`file`, `boxes`); see
benchmarks/pruning_clips.py.

Every rule prunes at its own default and at given shares of removed tokens; rules that look at embeddings get those of
the model's own encoder. What a rule shows is its kept tokens, and in the place of each removed one its stand-in: the
one that the rule names, the average that it was merged into, or else the kept token most like it. A finding survives
when at least half of its contrast is in that (benchmarks/pruning_findings.py): outlined lesions and boxed findings that
stand out, and spheres of 4–20 mm that change the display by 10–40 % of its range, planted at seeded places in volumes
and films without outlines.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.pruning_clips import HUB_MODEL, Case, build_processor, cases_of, packaged_cases, packaged_clips
from benchmarks.pruning_figures import Example, draw_examples, draw_survival
from benchmarks.pruning_findings import SURVIVING_CONTRAST, Finding, boxed, outlined, plant
from benchmarks.pruning_rules.compared import OF_CLIPS, OF_PICTURES, Rule, Shown, Subject
from benchmarks.pruning_rules.encoder import ClipEncoder
from benchmarks.report import share_with_interval, write_json
from data_engine.tables import markdown_table
from evaluation.metrics import bootstrap_interval
from hub_model.pruning_heatmap_omniv_med import draw_heatmap
from hub_model.pruning_noise_omniv_med import estimate_noise
from hub_model.visual_processing_omniv_med import patchify, to_uint8, unpatchify

KINDS = {"lesions": "outlined lesions in volumes", "spheres": "planted spheres", "boxes": "boxed findings in pictures"}
REMOVED = {"lesions": (0.6, 0.8, 0.9), "spheres": (0.6, 0.8, 0.9), "boxes": (0.3, 0.6, 0.8)}
"""Shares of removed tokens at which rules are compared; single pictures have less to spare."""
EXAMPLES_AT = {"lesions": 0.8, "spheres": 0.8, "boxes": 0.6}
DEFAULT = "default"
FEWEST_GROUPS = 10
"""With fewer patients or clips their bootstrap says nothing, and the interval is Wilson's, of single findings."""


@dataclass
class Row:
    """What one rule did to one clip at one setting.

    Attributes:
        kind, rule, setting: the setting is a share of removed tokens, or `DEFAULT`.
        clip, group: the clip's name and patient.
        removed: share of the tokens.
        mean_error, worst_error: mean absolute difference between a token and what is shown, over all tokens.
        seconds: of the decision, without the encoder.
        shares: for each finding the share of its contrast that is left.
    """

    kind: str
    rule: str
    setting: str
    clip: str
    group: str
    removed: float
    mean_error: float
    worst_error: float
    seconds: float
    shares: list[float] = field(default_factory=list)


def settings_of(rule: Rule, kind: str, subject: Subject) -> Iterator[tuple[str, Callable[[], Shown]]]:
    """The settings at which a rule is measured, and the calls that prune."""
    if rule.at_default is not None:
        default = rule.at_default
        yield DEFAULT, lambda: default(subject)
    if rule.at_number is not None:
        at_number = rule.at_number
        for removed in REMOVED[kind]:
            yield f"{removed:.0%}", lambda removed=removed: at_number(subject, subject.kept_at(removed))


def measure_case(
    case: Case, encoder: ClipEncoder, sphere_count: int, seed: int
) -> tuple[list[Row], dict[str, list[Example]]]:
    """All rules on one clip: figures, and for each rule examples of what it shows at one setting."""
    processed, tokens = case.processed, case.processed.tokens
    frames = unpatchify(tokens, *processed.grid)
    patch, merge = tokens.shape[-1], processed.merge_size
    findings: list[Finding] = []
    planted = None
    if case.boxes:
        kind, findings = "boxes", boxed(list(case.boxes), frames)
    elif case.mask is not None:
        kind, findings = "lesions", outlined(case.mask, frames)
    else:
        kind, planted = "spheres", plant(processed, frames, patch * merge, sphere_count, seed)
        frames = planted.frames
        tokens = patchify(frames, patch, merge)
    if not findings and planted is None:
        return [], {}
    view = encoder.view(processed, tokens)
    subject = Subject(tokens, processed.grid, estimate_noise(tokens), view, seed)
    rows: list[Row] = []
    examples: dict[str, list[Example]] = {}
    for rule in OF_PICTURES if kind == "boxes" else OF_CLIPS:
        for setting, prune in settings_of(rule, kind, subject):
            start = time.perf_counter()
            outcome = prune()
            seconds = time.perf_counter() - start
            shown = outcome.reconstruct(tokens)
            errors = (shown - tokens).abs_().flatten(2).mean(dim=-1)
            if planted is None:
                shown_frames = unpatchify(shown, *processed.grid)
                shares = [finding.share_left(frames, shown_frames) for finding in findings]
                if setting == f"{EXAMPLES_AT[kind]:.0%}":
                    examples[rule.name] = [
                        _example(finding, frames, shown_frames, share)
                        for finding, share in zip(findings, shares, strict=True)
                    ]
            else:
                difference = outcome.reconstruct(patchify(planted.difference, patch, merge))
                shares = planted.shares_left(unpatchify(difference, *processed.grid))
            removed = 1 - outcome.kept / (subject.frames * subject.places)
            mean, worst = float(errors.mean()), float(errors.max())
            rows.append(Row(kind, rule.name, setting, case.name, case.group, removed, mean, worst, seconds, shares))
    return rows, examples


def _example(finding: Finding, frames: torch.Tensor, shown: torch.Tensor, share: float) -> Example:
    """The middle frame of a finding as it is and as it is shown, with a margin."""
    times, rows, columns = finding.box
    middle = int(finding.inside.flatten(1).sum(dim=1).argmax())
    outline = finding.inside[middle].numpy()
    here = (slice(times.start + middle, times.start + middle + 1), slice(None), rows, columns)
    true, seen = (to_uint8(part[here])[0] for part in (frames, shown))
    return Example(true, seen, np.asarray(outline), share)


def measure(
    cases: Iterable[Case], encoder: ClipEncoder, sphere_count: int, seed: int
) -> tuple[list[Row], dict[str, dict[str, list[Example]]]]:
    """All rules on all clips."""
    rows: list[Row] = []
    examples: dict[str, dict[str, list[Example]]] = defaultdict(lambda: defaultdict(list))
    for case in tqdm(cases, unit="clip"):
        found, shown = measure_case(case, encoder, sphere_count, seed)
        rows += found
        for rule, more in shown.items():
            examples[found[0].kind][rule] += more
    return rows, examples


def summary(rows: list[Row]) -> list[dict[str, Any]]:
    """One entry for each kind, rule and setting, over all clips and findings."""
    groups: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.kind, row.rule, row.setting].append(row)
    return [
        {
            "kind": kind,
            "rule": rule,
            "setting": setting,
            "clips": len(found),
            "removed": float(np.mean([row.removed for row in found])),
            "survival": survival([(share, row.group) for row in found for share in row.shares]),
            "contrast_left": float(np.mean([np.clip(share, 0, 1) for row in found for share in row.shares])),
            "mean_error": float(np.mean([row.mean_error for row in found])),
            "worst_error": max(row.worst_error for row in found),
            "seconds": float(np.mean([row.seconds for row in found])),
        }
        for (kind, rule, setting), found in groups.items()
    ]


def by_volume(rows: list[Row]) -> dict[str, dict[str, str]]:
    """How many findings of how many survive in each volume and film, by rule and setting."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for row in rows:
        if row.kind != "boxes":
            survivors = sum(share >= SURVIVING_CONTRAST for share in row.shares)
            found[row.clip][f"{row.rule}, {row.setting}"] = f"{survivors} of {len(row.shares)}"
    return found


def survival(shares: list[tuple[float, str]]) -> dict[str, Any]:
    """Share of findings that survive, given what is left of each and its group, with a 95 % interval.

    By a bootstrap over groups; with few groups, or where all findings survive or none, Wilson's over findings.
    """
    survives = [float(share >= SURVIVING_CONTRAST) for share, _ in shares]
    figure: dict[str, Any] = dict(share_with_interval(int(sum(survives)), len(survives)))
    groups = [group for _, group in shares]
    figure |= {"groups": len(set(groups)), "interval": "Wilson"}
    if len(set(groups)) >= FEWEST_GROUPS and 0 < sum(survives) < len(survives):
        low, high = bootstrap_interval(survives, groups) or (figure["low"], figure["high"])
        figure |= {"low": low, "high": high, "interval": "bootstrap"}
    return figure


def table(results: list[dict[str, Any]], kind: str) -> str:
    """The survival of one kind of finding as Markdown: a row a rule, a column a setting."""
    here = {(item["rule"], item["setting"]): item for item in results if item["kind"] == kind}
    settings = [f"{removed:.0%}" for removed in REMOVED[kind]]
    middle = f"{EXAMPLES_AT[kind]:.0%}"

    def cell(item: dict[str, Any] | None) -> str:
        if item is None:
            return "–"
        kept = item["survival"]
        words = f"{kept['share']:.1%} ({kept['low']:.0%}–{kept['high']:.0%})"
        return f"{item['removed']:.0%} removed: {words}" if item["setting"] == DEFAULT else words

    rows = []
    for rule in dict.fromkeys(item["rule"] for item in results if item["kind"] == kind):
        found = [here.get((rule, setting)) for setting in (*settings, DEFAULT)]
        at = here.get((rule, middle)) or here[rule, DEFAULT]
        errors = [f"{at['mean_error']:.3f}", f"{at['worst_error']:.2f}", f"{1000 * at['seconds']:.0f}"]
        rows.append([rule, *(cell(item) for item in found), *errors])
    header = ["rule", *(f"{setting} removed" for setting in settings), "its own default"]
    return markdown_table([*header, "mean error", "worst error", "ms a clip"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", required=True, metavar="OUT", help="file for the figures")
    parser.add_argument("--clips", type=Path, metavar="DIR", help="folder with volumes.jsonl and images.jsonl")
    parser.add_argument("--figures", type=Path, metavar="DIR", help="where survival and examples of losses are drawn")
    parser.add_argument("--limit", type=int, default=10, help="volumes, and pictures of each source (default 10)")
    parser.add_argument("--frames", type=int, default=64, help="most frames of a clip (default 64)")
    parser.add_argument("--frame-tokens", type=int, default=64, help="tokens of a frame (default 64: 224×224 pixels)")
    parser.add_argument("--spheres", type=int, default=40, help="spheres in each clip without outlines (default 40)")
    parser.add_argument("--seed", type=int, default=0, help="of spheres, pictures and random removal (default 0)")
    parser.add_argument("--picture", metavar="PNG", help="where slices of the MNI152 average are drawn, pruned")
    arguments = parser.parse_args()
    processor = build_processor(arguments.frame_tokens, arguments.frames)
    if arguments.picture:
        clip = processor.load(next(iter(packaged_clips().values())))
        draw_heatmap(processor.process_clip(clip, prune_rule="anchor"), arguments.picture)
    encoder = ClipEncoder(HUB_MODEL)
    cases = (
        packaged_cases(processor)
        if arguments.clips is None
        else cases_of(arguments.clips, processor, arguments.limit, arguments.seed)
    )
    rows, examples = measure(cases, encoder, arguments.spheres, arguments.seed)
    results = summary(rows)
    options = {name: getattr(arguments, name) for name in ("limit", "frames", "frame_tokens", "spheres", "seed")}
    write_json(arguments.json, "pruning", {**options, "results": results, "volumes": by_volume(rows)})
    for kind, words in KINDS.items():
        found = [item for item in results if item["kind"] == kind]
        if found:
            number = found[0]["survival"]
            print(f"\n{words}: {number['n']} in {found[0]['clips']} clips of {number['groups']} groups\n")
            print(table(results, kind))
    if arguments.figures:
        arguments.figures.mkdir(parents=True, exist_ok=True)
        draw_survival(results, KINDS, arguments.figures / "pruning_survival.png")
        for kind, by_rule in examples.items():
            title = f"{KINDS[kind].capitalize()}, {EXAMPLES_AT[kind]:.0%} of the tokens removed: what each rule loses"
            draw_examples(by_rule, title, arguments.seed, arguments.figures / f"pruning_lost_{kind}.png")


if __name__ == "__main__":
    main()
