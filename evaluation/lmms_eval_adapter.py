# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Lets lmms-eval run OmniV-Med on its own tasks: a model of lmms-eval's, and its command with that model registered.

    pip install --no-deps -r requirements-lmms-eval.txt
    python -m evaluation.lmms_eval_adapter --model omniv_med --model_args pretrained=hub_model,keep_ratio=0.4 \\
        --tasks slake --batch_size 8 --output_path runs/lmms-eval

All arguments are lmms-eval's (`--help`; github.com/EvolvingLMMs-Lab/lmms-eval); `--model_args` takes `pretrained` and
every pruning option of `evaluation.run`. Tasks that compare the likelihood of choices need `--force_simple`, because
lmms-eval does not offer them to chat models. `accelerate launch -m evaluation.lmms_eval_adapter …` divides questions
over processes. lmms-eval is installed without what it asks for: older releases of PyAV, protobuf and dateutil than this
project's, and much that only its other models and tasks use.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from accelerate import PartialState
from tqdm import tqdm
from transformers import StoppingCriteria

from evaluation.run import load

try:
    from lmms_eval.__main__ import cli_evaluate
    from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts
    from lmms_eval.api.model import lmms
    from lmms_eval.models import MODEL_REGISTRY_V2
    from lmms_eval.models.registry_v2 import ModelManifest
    from lmms_eval.utils import Collator
    from loguru import logger
except ImportError as error:
    raise ImportError(
        f"{error}; install lmms-eval with: pip install --no-deps -r requirements-lmms-eval.txt"
    ) from error

MODEL_NAME = "omniv_med"
"""What `--model` and the `lmms_eval_specific_kwargs` of a task call this model."""
MAX_NEW_TOKENS = 1024
"""Where a task sets no limit, among the 128 to 4096 that lmms-eval's own models take."""
UNASKED_STOP = "\n\n"
"""lmms-eval stops at it wherever a task names nothing, as a model that continues running text must. A chat model ends
its turn by itself and may write paragraphs, so it is left out, as lmms-eval's Qwen2.5-VL leaves it out."""
Conversation = list[dict[str, Any]]


class StopStrings(StoppingCriteria):
    """Ends an answer that holds one of some strings.

    transformers' own criterion also looks into the prompt, whose last line break and the answer's first would make an
    empty line.

    Args:
        tokenizer: decodes the answer.
        strings: where to stop.
        prompt_length: tokens before the answer, padding included.
    """

    def __init__(self, tokenizer: Any, strings: Sequence[str], prompt_length: int):
        self.tokenizer = tokenizer
        self.strings = strings
        self.prompt_length = prompt_length

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        """Bool (batch,): which of the sequences (batch, length) are at their end."""
        answers = self.tokenizer.batch_decode(input_ids[:, self.prompt_length :], skip_special_tokens=True)
        ended = [any(string in answer for string in self.strings) for answer in answers]
        return torch.tensor(ended, device=input_ids.device)


class OmniVMedSimple(lmms):
    """OmniV-Med for tasks that give a text and a list of media, and for choices compared by likelihood.

    Args:
        pretrained: folder or Hub id, loaded with `trust_remote_code`.
        batch_size: questions answered at once, left-padded.
        device: where to compute; by default the accelerator of this process, else the CPU.
        options: pruning options of the processor and the encoder, as `evaluation.run --pruning` takes them, and the
            processor's other options.

    Raises:
        ValueError: a batch size that is no number, or an option that there is not.
    """

    is_simple = True

    def __init__(self, pretrained: str, batch_size: int | str = 1, device: str | None = None, **options: Any):
        super().__init__()
        if not str(batch_size).isdecimal() or int(batch_size) < 1:
            raise ValueError(f"batch_size must be a whole number from 1, not {batch_size!r}.")
        self.batch_size = int(batch_size)
        # Without an accelerator Accelerate must be told so, or it takes each of several processes for the only one.
        state = PartialState(cpu=not torch.accelerator.is_available())
        self.device = torch.device(device) if device else state.device
        self.model, self.processor = load(pretrained, options, self.device)

    def conversation(self, arguments: tuple) -> Conversation:
        """A request's conversation, its media read.

        Raises:
            ValueError: media that cannot be read.
        """
        context, _, doc_to_visual, number, task, split = arguments
        media = doc_to_visual(self.task_dict[task][split][number]) or []  # None where a task is text only
        content = [*map(self.medium, media), {"type": "text", "text": context}]
        return [{"role": "user", "content": content}]

    def options(self, arguments: tuple) -> dict[str, Any]:
        """A request's `generation_kwargs`."""
        return arguments[1]

    def medium(self, source: Any) -> dict[str, Any]:
        """A content part of anything that `load_clip` reads; lmms-eval calls it by its name's ending, often wrongly.

        Raises:
            ValueError: media that cannot be read, and what lmms-eval describes in a dict: sound and parts of videos.
        """
        if isinstance(source, dict):
            raise ValueError("Sound and parts of a video cannot be shown to OmniV-Med; give images or whole videos.")
        clip = self.processor.load(source)
        return {"type": clip.kind, clip.kind: clip}

    def encode(self, conversations: Sequence[Conversation]) -> Any:
        """Left-padded inputs of the model, on the CPU."""
        return self.processor.apply_chat_template(
            list(conversations),
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            processor_kwargs={"return_tensors": "pt", "padding": True},
        )

    def generate_until(self, requests: list[Instance]) -> list[GenerationResult]:
        """Answers with the tokens of prompt and answer; greedy unless a task sets a temperature above 0.

        An answer ends before the first of the strings that the task stops at (`UNASKED_STOP` apart). A question whose
        media cannot be read gets the empty answer and a warning, so that it stays in the denominator.
        """
        # A batch shares its generation options, and texts of like length, so that little is padded.
        order = Collator([r.args for r in requests], lambda a: -len(a[0]), group_fn=self.options, grouping=True)
        answers = []
        with tqdm(total=len(requests), desc="Answering", unit="question", disable=self.rank != 0) as bar:
            for batch in order.get_batched(n=self.batch_size):
                answers += self._answer_readable(batch)
                bar.update(len(batch))
        return order.get_original(answers)

    def _answer_readable(self, batch: Sequence[tuple]) -> list[GenerationResult]:
        conversations = {}
        for place, arguments in enumerate(batch):
            try:
                conversations[place] = self.conversation(arguments)
            except ValueError as error:
                *_, number, task, _ = arguments
                logger.warning(f"Question {number} of {task} counts as wrong: {error}")
        answers = self._answer(list(conversations.values()), self.options(batch[0])) if conversations else []
        answered = dict(zip(conversations, answers, strict=True))
        return [answered.get(place, GenerationResult("")) for place in range(len(batch))]

    @torch.inference_mode()
    def _answer(self, conversations: Sequence[Conversation], options: dict[str, Any]) -> list[GenerationResult]:
        inputs = self.encode(conversations).to(self.device)
        prompt_length = inputs["input_ids"].shape[1]
        tokenizer = self.processor.tokenizer
        stops = stop_strings(options)
        output = self.model.generate(
            **inputs,
            **generation_options(options),
            stopping_criteria=[StopStrings(tokenizer, stops, prompt_length)] if stops else None,
        )[:, prompt_length:]
        results = []
        for prompt, ids in zip(inputs["attention_mask"], output, strict=True):
            text = tokenizer.decode(ids, skip_special_tokens=True)
            for stop in stops:
                text = text.partition(stop)[0]
            written = int((ids != tokenizer.pad_token_id).sum())
            results.append(GenerationResult(text.strip(), TokenCounts(int(prompt.sum()), written)))
        return results

    @torch.inference_mode()
    def loglikelihood(self, requests: list[Instance]) -> list[GenerationResult]:
        """For each continuation its mean negative log-likelihood per token, and whether it is the greedy answer.

        The sign and the mean are those of lmms-eval's own models: its tasks choose the smallest. The pair stands in
        place of a text, because lmms-eval 0.7.3 turns a bare pair into a string that its tasks cannot read; for the
        same reason its `--use_cache` serves only tasks that generate.

        Raises:
            ValueError: media that cannot be read, an empty continuation, or a metric without a context.
        """
        results = []
        for start in tqdm(range(0, len(requests), self.batch_size), desc="Comparing", disable=self.rank != 0):
            results += self._score([request.args for request in requests[start : start + self.batch_size]])
        return results

    def _score(self, batch: Sequence[tuple]) -> list[GenerationResult]:
        if any(len(arguments) != 6 for arguments in batch):
            raise ValueError("acc_mutual_info has lmms-eval ask without a context; use acc or acc_norm.")
        inputs = self.encode([self.conversation(arguments) for arguments in batch])
        tokenizer = self.processor.tokenizer
        continuations = [tokenizer(self._continuation(one), add_special_tokens=False).input_ids for one in batch]
        prompts = [
            ids[mask.bool()].tolist() for ids, mask in zip(inputs["input_ids"], inputs["attention_mask"], strict=True)
        ]
        rows = [prompt + continuation for prompt, continuation in zip(prompts, continuations, strict=True)]
        inputs |= tokenizer.pad({"input_ids": rows}, padding_side="left", return_tensors="pt")
        longest = max(map(len, continuations))
        logits = self.model(**inputs.to(self.device), logits_to_keep=longest + 1).logits.float()
        results = []
        for row, continuation in zip(logits, continuations, strict=True):
            scores = row[-len(continuation) - 1 : -1].log_softmax(dim=-1)  # each position speaks of the next token
            target = torch.tensor(continuation, device=scores.device)
            loss = -scores.gather(1, target[:, None]).mean()
            greedy = bool((scores.argmax(dim=-1) == target).all())
            results.append(GenerationResult((float(loss), greedy)))
        return results

    def _continuation(self, arguments: tuple) -> str:
        """What is scored: an answer opens its own turn, so the space that parts it from running text goes."""
        _, target, _, number, task, split = arguments
        text = (target(self.task_dict[task][split][number]) if callable(target) else target).lstrip()
        if not text:
            raise ValueError(f"Question {number} of {task} has an empty choice; give each a text.")
        return text

    def generate_until_multi_round(self, requests: list[Instance]) -> list[str]:
        """Refused.

        Raises:
            NotImplementedError: always; a round may depend on tools that answer between the turns.
        """
        raise NotImplementedError("OmniV-Med answers tasks of one round only; choose tasks without multi_round.")


class OmniVMedChat(OmniVMedSimple):
    """OmniV-Med for tasks that give whole conversations, with media anywhere in them; those of text and media too.

    Its requests hold `(context, doc_to_messages, generation_kwargs, number, task, split)`.
    """

    is_simple = False

    def conversation(self, arguments: tuple) -> Conversation:
        _, doc_to_messages, _, number, task, split = arguments
        messages = doc_to_messages(self.task_dict[task][split][number])
        return [{"role": one["role"], "content": [self._part(part) for part in one["content"]]} for one in messages]

    def _part(self, part: dict[str, Any]) -> dict[str, Any]:
        if part["type"] == "text":
            return part
        if part.get("start_time") is not None or part.get("end_time") is not None:
            return self.medium(part)
        return self.medium(part["url"])

    def options(self, arguments: tuple) -> dict[str, Any]:
        return arguments[2]


def stop_strings(options: dict[str, Any]) -> list[str]:
    """The strings of a task's `until` that end an answer."""
    until = options.get("until") or []
    return [string for string in ([until] if isinstance(until, str) else until) if string and string != UNASKED_STOP]


def generation_options(options: dict[str, Any]) -> dict[str, Any]:
    """The part of a task's `generation_kwargs` that `generate` takes; tasks also set options of other models."""
    sampled = (options.get("temperature") or 0) > 0 and options.get("do_sample") is not False
    sampling = {name: options[name] for name in ("temperature", "top_p", "top_k") if options.get(name) is not None}
    return {
        "max_new_tokens": options.get("max_new_tokens") or MAX_NEW_TOKENS,
        "num_beams": options.get("num_beams") or 1,
        "do_sample": sampled,
        **(sampling if sampled else {}),
    }


def main() -> None:
    """lmms-eval's command, which knows this model."""
    PartialState(cpu=not torch.accelerator.is_available())  # before lmms-eval makes its own; see `OmniVMedSimple`
    here = "evaluation.lmms_eval_adapter"
    MODEL_REGISTRY_V2.register_manifest(
        ModelManifest(MODEL_NAME, f"{here}.{OmniVMedSimple.__name__}", f"{here}.{OmniVMedChat.__name__}")
    )
    cli_evaluate()


if __name__ == "__main__":
    main()
