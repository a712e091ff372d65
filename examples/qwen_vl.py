# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Asks a Qwen2.5-VL or Qwen3-VL, or a medical model made of one, about a volume or a video, with our pruning.

    python -m examples.qwen_vl scan.zip "Is there a lesion?" --model lingshu-medical-mllm/Lingshu-7B

The file is read as ours are: windows, plane, choice of slices. Its frames are one video to the model, and tokens that
repeat leave the prompt. Needs torchvision, as transformers' video processors do.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.video_utils import VideoMetadata

from hub_model.clip_omniv_med import Clip
from hub_model.media_omniv_med import load_clip
from hub_model.qwen_vl_pruning_omniv_med import PrunedPrompt, prune_prompt

LONGEST_ANSWER = 256


def pruned_prompt(processor: Any, clip: Clip, question: str, threshold: float) -> PrunedPrompt:
    """The prompt about a clip of several frames, without what repeats; slices count as seconds."""
    content = [{"type": "video"}, {"type": "text", "text": question}]
    text = processor.apply_chat_template(
        [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
    )
    count = len(clip.frames)
    rate = (count - 1) / (clip.positions[-1] - clip.positions[0]) if clip.kind == "video" and count > 1 else 1.0
    frames = np.ascontiguousarray(clip.frames)
    metadata = VideoMetadata(total_num_frames=count, fps=rate, frames_indices=list(range(count)))
    inputs = processor(
        text=[text], videos=[frames], video_metadata=[metadata], do_sample_frames=False, return_tensors="pt"
    )
    return prune_prompt(processor, inputs, threshold)


def ask(model: Any, processor: Any, prompt: PrunedPrompt) -> str:
    """The model's greedy answer."""
    output = model.generate(**prompt.for_model(model), max_new_tokens=LONGEST_ANSWER, do_sample=False)
    return processor.batch_decode(output[:, prompt.input_ids.shape[1] :], skip_special_tokens=True)[0].strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", help="file, folder or zip with a volume or a video")
    parser.add_argument("question")
    parser.add_argument("--model", required=True, help="folder or Hub name of a Qwen2.5-VL or Qwen3-VL")
    parser.add_argument("--threshold", type=float, default=0.1, help="of pruning, in pixel values of [-1, 1]")
    parser.add_argument("--frames", type=int, default=32, help="frames at most (default: 32)")
    options = parser.parse_args()
    try:
        clip = load_clip(options.file, max_frames=options.frames)
        processor = AutoProcessor.from_pretrained(options.model)
        prompt = pruned_prompt(processor, clip, options.question, options.threshold)
        model = AutoModelForImageTextToText.from_pretrained(options.model, dtype="auto")
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f"Error: {error}")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(ask(model.to(device).eval(), processor, prompt))
    print(f"{prompt.reduction:.0%} of the prompt's tokens were pruned.")


if __name__ == "__main__":
    main()
