# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Captions videos, volumes and images by rejection sampling: a model writes, others judge, the best are kept.

    python -m data_engine.caption --config captions.yaml --out data/captions

The method is that of OmniV-Med (arXiv 2504.14692, Figure 4), and so are the models below; any servers that speak
OpenAI's chat completions will do (vLLM, SGLang, `transformers serve`, a paid one). A configuration:

    generator: {base_url: "http://localhost:8000/v1", model: Qwen/Qwen2.5-VL-72B-Instruct, temperature: 0.8}
    judges:
      - {base_url: "http://localhost:8000/v1", model: Qwen/Qwen2.5-VL-72B-Instruct}
      - {base_url: "http://localhost:8001/v1", model: FreedomIntelligence/HuatuoGPT2-13B, sees_media: false}
      # a paid one: api_key_env: NAME_OF_A_VARIABLE, input_price: 2.5, output_price: 10 (of a million tokens)
    sources:    # paths are relative to this file
      - {kind: folder, path: videos, name: my-videos, license: CC-BY-4.0, modality: endoscopy}
      - {kind: records, path: set/train.jsonl}
    candidates: 4
    threshold: 4.0

`data_engine.captioning.config` documents all fields. Into the folder --out are written:

    captions.jsonl    records of the accepted captions; their media are linked into media/
    decisions.jsonl   of each item all candidates, scores and reasons
    statistics.json   acceptance, agreement of the judges, tokens, cost, time
    ledger.jsonl      every answer that was paid for: what is in it is not asked again

A run that was stopped goes on where it was. So does one with another threshold, at no cost at all.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data_engine.adapters.base import BrokenRow, MediaStore, seeded
from data_engine.captioning.client import ChatClient, ItemError
from data_engine.captioning.config import CaptionConfig, CaptionError
from data_engine.captioning.items import Item, list_items
from data_engine.captioning.judging import Candidate, Decision, Verdict
from data_engine.captioning.ledger import Ledger
from data_engine.captioning.sampling import RejectionSampler, decide_all
from data_engine.captioning.statistics import Statistics
from data_engine.commands import STOPPED
from data_engine.files import write_atomically
from data_engine.questions import caption_request
from data_engine.records import DIMENSION_OF, REPORTS, Medium, Record, Turn, write_jsonl


def to_record(item: Item, caption: str, store: MediaStore) -> Record:
    """The record of an accepted caption, which answers a request in varied wording.

    Raises:
        BrokenRow: a medium is gone.
    """
    media = [
        Medium(type=medium.type, path=store.add(file, path), spacing=medium.spacing)
        for medium, file, path in zip(item.media, item.files, item.stored, strict=True)
    ]
    request = caption_request(item.kind, seeded(item.id))
    return Record(
        id=item.id,
        dimension=DIMENSION_OF[item.kind],
        modality=item.modality,
        task=REPORTS,
        media=tuple(media),
        conversations=(Turn(role="user", content=request), Turn(role="assistant", content=caption)),
        source=item.source,
        license=item.license,
        split=item.split,
    )


def decision_row(decision: Decision) -> dict[str, Any]:
    """A decision as a line of `decisions.jsonl`."""

    def verdict_row(verdict: Verdict) -> dict[str, Any]:
        if verdict.judgement is None:
            return {"judge": verdict.judge, "failed": verdict.problem}
        return {"judge": verdict.judge, **verdict.judgement.model_dump()}

    def candidate_row(candidate: Candidate) -> dict[str, Any]:
        verdicts = [verdict_row(verdict) for verdict in candidate.verdicts]
        return {"caption": candidate.caption, "score": candidate.score, "verdicts": verdicts}

    return {
        "id": decision.item_id,
        "chosen": decision.chosen.number if decision.chosen else None,
        "candidates": [candidate_row(candidate) for candidate in decision.candidates],
    }


def write_results(items: list[Item], decisions: dict[int, Decision], out: Path) -> None:
    """Writes records and decisions in the order of the items, so that they do not depend on who answered first."""
    ordered = [decisions[place] for place in sorted(decisions)]
    store, item_of = MediaStore(out), {item.id: item for item in items}
    accepted = [(item_of[one.item_id], one.chosen.caption) for one in ordered if one.chosen]
    try:
        write_jsonl((to_record(item, caption, store) for item, caption in accepted), out / "captions.jsonl")
    except BrokenRow as error:
        raise CaptionError(f"A medium cannot be linked into {out}: {error}") from None
    write_whole(out / "decisions.jsonl", (json.dumps(decision_row(one), ensure_ascii=False) for one in ordered))


def write_whole(path: Path, lines: Iterable[str]) -> None:
    """Writes a text file through a temporary one beside it."""
    with write_atomically(path) as part:
        part.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def end_on_signals(client: ChatClient) -> None:
    """Lets Ctrl-C (and a scheduler's SIGTERM) wait for the requests in flight; a second Ctrl-C does not."""
    loop = asyncio.get_running_loop()

    def end(number: signal.Signals) -> None:
        client.end(CaptionError(STOPPED))
        loop.remove_signal_handler(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end, number)


async def caption_items(config: CaptionConfig, items: list[Item], ledger: Ledger, out: Path) -> dict[str, Any]:
    """Decides all items and writes what came of it, also after an error; returns the figures.

    Raises:
        CaptionError: what ended the run too early.
    """
    started, decisions = time.monotonic(), {}
    statistics = Statistics([judge.model for judge in config.judges])
    client = ChatClient(config, ledger)
    end_on_signals(client)
    with tqdm(total=len(items), desc="Captioning", unit="item") as bar:

        def finished(place: int, outcome: Decision | ItemError) -> None:
            if isinstance(outcome, Decision):
                decisions[place] = outcome
                statistics.add(outcome)
            else:
                statistics.add_failure(items[place].id, str(outcome))
            bar.set_postfix(statistics.brief(ledger.totals), refresh=False)
            bar.update()

        try:
            await decide_all(items, RejectionSampler(config, client), config.max_concurrent, finished)
        finally:
            await client.close()
            figures = statistics.summary(len(items), ledger.totals, time.monotonic() - started)
            write_whole(out / "statistics.json", [json.dumps(figures, indent=1, ensure_ascii=False)])
            write_results(items, decisions, out)
    return figures


def run(config_path: Path, out: Path, limit: int | None) -> dict[str, Any]:
    """Reads, decides, writes; returns the figures.

    Raises:
        CaptionError: wrong input, or what ended the run too early.
    """
    config = CaptionConfig.read(config_path)
    items = list_items(config.sources)[:limit]
    out.mkdir(parents=True, exist_ok=True)
    with Ledger(out / "ledger.jsonl") as ledger:
        return asyncio.run(caption_items(config, items, ledger, out))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, required=True, help="YAML file, as above")
    parser.add_argument("--out", type=Path, required=True, help="folder to write into, or to go on in")
    parser.add_argument("--limit", type=int, help="only so many items, the first ones")
    arguments = parser.parse_args()
    if arguments.limit is not None and arguments.limit < 1:
        parser.error("--limit must be at least 1.")
    # On request (OPENAI_LOG) the library logs what it sends: pictures of patients.
    logging.getLogger("openai").setLevel(logging.WARNING)
    try:
        figures = run(arguments.config, arguments.out, arguments.limit)
    except CaptionError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("Stopped at once; requests in flight will be made again.")
    spent = figures["spent"]
    print(
        f"{figures['accepted']:,} of {figures['items']:,} items have a caption in {arguments.out / 'captions.jsonl'}; "
        f"{spent['requests']:,} requests, {spent['input_tokens']:,} + {spent['output_tokens']:,} tokens, "
        f"cost {spent['cost']:.2f} so far."
    )
    if figures["failed"]:
        sys.exit(
            f"{figures['failed']:,} items failed; statistics.json says why, and the same command tries them again."
        )


if __name__ == "__main__":
    main()
