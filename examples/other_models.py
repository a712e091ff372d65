# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Shows a volume to any chat model that reads pictures, with our windows, plane and choice of slices.

    python -m examples.other_models scan.zip "Is there a nodule?" --windows lung --slices 48
    python -m examples.other_models scan.zip "Is there a nodule?" --model google/medgemma-1.5-4b-it

The message is MedGemma's: an instruction, then each slice as a picture with "SLICE 1" and so on behind it, then the
question. Without `--model` the command prints what such a message holds; `messages_for` makes it in Python.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

from hub_model.clip_omniv_med import PLANES, Clip
from hub_model.media_omniv_med import load_clip

INSTRUCTION = "You are shown slices of a medical scan, from one end to the other. Look at all of them, then answer."
LONGEST_ANSWER = 512


def messages_for(clip: Clip, question: str) -> list[dict[str, Any]]:
    """One user message with all frames of a volume, as transformers' chat templates take it."""
    content: list[dict[str, Any]] = [{"type": "text", "text": INSTRUCTION}]
    for number, picture in enumerate(clip.images(), 1):
        content += [{"type": "image", "image": picture}, {"type": "text", "text": f"SLICE {number}"}]
    return [{"role": "user", "content": [*content, {"type": "text", "text": question}]}]


def ask(model_name: str, messages: list[dict[str, Any]], trust_remote_code: bool) -> str:
    """The answer of a model of the Hub, or of a folder, in its own number format."""
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor = AutoProcessor.from_pretrained(model_name, trust_remote_code=trust_remote_code)
    model = AutoModelForImageTextToText.from_pretrained(model_name, trust_remote_code=trust_remote_code, dtype="auto")
    model = model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    inputs = processor.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    ).to(model.device)
    output = model.generate(**inputs, max_new_tokens=LONGEST_ANSWER, do_sample=False)
    return processor.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)[0].strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", help="file, folder or zip with a volume")
    parser.add_argument("question")
    parser.add_argument("--plane", choices=PLANES, default="axial", help="how the volume is sliced (default: axial)")
    parser.add_argument("--windows", nargs="+", help="one or three names of CT windows, such as lung (default: three)")
    parser.add_argument("--slices", type=int, default=32, help="slices at most, evenly spaced (default: 32)")
    parser.add_argument("--model", help="folder or Hub name of a chat model; without it the message is printed")
    parser.add_argument("--trust-remote-code", action="store_true", help="run the code that the model brings")
    options = parser.parse_args()
    try:
        clip = load_clip(options.file, plane=options.plane, windows=options.windows, max_frames=options.slices)
        if clip.kind != "volume":
            sys.exit(f"Error: the file holds no volume but a single {clip.kind}; give a CT or an MR scan.")
        messages = messages_for(clip, options.question)
        for note in clip.notes:
            print(f"note: {note}")
        if options.model is not None:
            print(ask(options.model, messages, options.trust_remote_code))
            return
    except (ValueError, OSError) as error:
        sys.exit(f"Error: {error}")
    for part in messages[0]["content"]:
        print(
            part["text"] if part["type"] == "text" else f"[picture of {part['image'].width} x {part['image'].height}]"
        )


if __name__ == "__main__":
    main()
