# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Whether training ruined the language model: perplexity on held-out English text beside the untouched one.

    python -m evaluation.nano.text_perplexity --model hub_model --baseline smollm2 --json perplexity.json

`text/held_out.txt` beside this file was written for this purpose alone (28 passages, general and medical in turn,
Apache-2.0) and is part of no training prompt. Each passage is read by itself, so the passages are independent and the
bootstrap draws whole ones.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from evaluation.metrics import bootstrap_interval
from train.checkpoints.language_model import load_language_model

ROOT = Path(__file__).resolve().parents[2]
HELD_OUT = ROOT / "evaluation" / "nano" / "text" / "held_out.txt"
SMOLLM2 = "smollm2"
ALLOWED_CHANGE = 0.10
"""By how much perplexity may rise before the language model counts as ruined."""


def passages_of(text: str) -> list[str]:
    """The paragraphs of a text, which stand apart by empty lines."""
    return [passage.strip() for passage in text.split("\n\n") if passage.strip()]


def load(name: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A model in evaluation mode and its tokenizer: "smollm2", a folder, or a name on the Hub.

    Raises:
        ValueError: where there is no such model.
    """
    if name == SMOLLM2:
        return load_language_model(ROOT / ".cache")
    try:
        model = AutoModelForCausalLM.from_pretrained(name, trust_remote_code=True, dtype="auto")
        return model.eval(), AutoTokenizer.from_pretrained(name, trust_remote_code=True)
    except OSError as error:
        raise ValueError(f"{name} is no model that can be loaded: {str(error).splitlines()[0]}") from None


@torch.no_grad()
def surprises(model: PreTrainedModel, passages: list[list[int]], name: str) -> list[list[float]]:
    """Negative log-likelihood in nats of every token of each passage but its first, which nothing precedes."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = model.to(device)
    found = []
    for ids in tqdm(passages, desc=f"Reading with {name}", unit="passage"):
        tokens = torch.tensor([ids], device=device)
        logits = model(input_ids=tokens).logits[0, :-1].float()
        found.append(torch.nn.functional.cross_entropy(logits, tokens[0, 1:], reduction="none").tolist())
    return found


def mean_with_interval(values: list[list[float]]) -> dict[str, Any]:
    """exp of the mean over all tokens, with its 95 % bootstrap interval over passages: a perplexity, or a ratio."""
    flat = [value for passage in values for value in passage]
    groups = [number for number, passage in enumerate(values) for _ in passage]
    interval = bootstrap_interval(flat, groups)
    return {
        "value": math.exp(sum(flat) / len(flat)),
        "interval": None if interval is None else [math.exp(end) for end in interval],
    }


def compare_on_text(model_name: str, baseline_name: str, text: str) -> dict[str, Any]:
    """Perplexities of both models on the passages of a text, and their ratio, passage by passage.

    Raises:
        ValueError: for an empty text, or tokenizers that cut it differently, whose perplexities cannot be compared.
    """
    passages = passages_of(text)
    model, tokenizer = load(model_name)
    baseline, other = load(baseline_name)
    ids = [tokenizer(passage, add_special_tokens=False).input_ids for passage in passages]
    if not any(len(passage) > 1 for passage in ids):
        raise ValueError("The text has no passage of two tokens or more.")
    if ids != [other(passage, add_special_tokens=False).input_ids for passage in passages]:
        raise ValueError(
            f"{model_name} and {baseline_name} cut the text into different tokens, so their perplexities cannot be "
            "compared; name the language model that training began with as the baseline."
        )
    after, before = surprises(model, ids, model_name), surprises(baseline, ids, baseline_name)
    differences = [[a - b for a, b in zip(x, y, strict=True)] for x, y in zip(after, before, strict=True)]
    ratio = mean_with_interval(differences)
    return {
        "passages": len(passages),
        "words": len(text.split()),
        "scored_tokens": sum(map(len, after)),
        "model": {"name": model_name, "perplexity": mean_with_interval(after)},
        "baseline": {"name": baseline_name, "perplexity": mean_with_interval(before)},
        "ratio": ratio,
        "within_allowed_change": ratio["value"] <= 1 + ALLOWED_CHANGE,
        "each_passage": [
            {
                "begins": passage[:40],
                "model": math.exp(sum(a) / len(a)) if a else None,
                "baseline": math.exp(sum(b) / len(b)) if b else None,
            }
            for passage, a, b in zip(passages, after, before, strict=True)
        ],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="hub_model", help="folder or Hub name of the trained model")
    parser.add_argument(
        "--baseline",
        default=SMOLLM2,
        help=f'the language model before training: folder, Hub name, or "{SMOLLM2}" (the Nano\'s, the default)',
    )
    parser.add_argument("--text", type=Path, default=HELD_OUT, help="another text, its passages parted by empty lines")
    parser.add_argument("--json", type=Path, help="where the figures are written")
    arguments = parser.parse_args()
    try:
        result = compare_on_text(arguments.model, arguments.baseline, arguments.text.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        sys.exit(f"Error: {error}")
    for side in ("baseline", "model"):
        figure = result[side]["perplexity"]
        print(f"{result[side]['name']}: perplexity {figure['value']:.2f} {_shown(figure['interval'])}")
    ratio = result["ratio"]
    print(
        f"ratio {ratio['value']:.4f} {_shown(ratio['interval'], 4)} over {result['scored_tokens']} tokens of "
        f"{result['passages']} passages: {'within' if result['within_allowed_change'] else 'beyond'} "
        f"{ALLOWED_CHANGE:.0%}"
    )
    if arguments.json:
        command = " ".join(["python", "-m", "evaluation.nano.text_perplexity", *sys.argv[1:]])
        written = {"command": command, "torch": torch.__version__, **result}
        arguments.json.write_text(json.dumps(written, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _shown(interval: list[float] | None, digits: int = 2) -> str:
    return "" if interval is None else f"({interval[0]:.{digits}f}-{interval[1]:.{digits}f})"


if __name__ == "__main__":
    main()
