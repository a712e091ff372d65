# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""Text-only conversations that keep the language model what it was: it answers prompts itself, before it is trained.

Learning without forgetting by self-distillation (Li and Hoiem, arXiv 1606.09282): no other data set is needed, and
what is kept is exactly the behaviour that the model had. Questions are answered by the likeliest words; longer prose
is drawn at temperature 1, because the cross-entropy of what a model draws is smallest where its distribution stays.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import BatchFeature

from data_engine.files import write_atomically
from hub_model.modeling_omniv_med import OmniVMedForConditionalGeneration
from hub_model.processing_omniv_med import OmniVMedProcessor
from train.dataset.conversations import Conversation

LONGEST_ANSWER, LONGEST_PROSE = 48, 128
BATCH_SIZE = 64
DRAWS = 3
"""How often each essay is written, each time another one."""
SEED = 0
PROMPTS = (
    "What is 2 + 2?",
    "What is the capital of France?",
    "Name three primary colours.",
    "Why is the sky blue?",
    "Write one sentence about the sea.",
    "What is photosynthesis?",
    "Who wrote Romeo and Juliet?",
    "Translate 'good morning' into Spanish.",
    "How many days are in a week?",
    "What does a thermometer measure?",
    "Give me a tip for learning a language.",
    "What is gravity?",
    "Explain what a computer program is.",
    "What is the largest planet in the solar system?",
    "List two uses of water.",
    "What is a noun?",
    "Why do we sleep?",
    "Give a synonym for happy.",
    "What is the boiling point of water?",
    "How does a bicycle stay upright?",
    "Is the Earth round? Answer in one sentence.",
    "What is an algorithm?",
    "Write a short greeting for an email.",
    "What is the opposite of cold?",
    "What is the heart for?",
    "What do the lungs do?",
    "What is the function of the kidneys?",
    "What is blood pressure?",
    "What is a fracture?",
    "What is pneumonia?",
    "What is an artery?",
    "What is the liver for?",
    "What is a tumour?",
    "What is diabetes?",
    "What does a radiologist do?",
    "What is magnetic resonance imaging used for?",
    "What is an X-ray image?",
    "How does ultrasound imaging work?",
    "What is an endoscopy?",
    "What is a biopsy?",
    "Why is contrast medium used in medical imaging?",
    "What is the retina?",
    "What is anaesthesia?",
    "What is the difference between a vein and an artery?",
    "What is a vaccine?",
    "What are symptoms of a cold?",
    "What is the spine made of?",
    "What is the brain's function?",
    "What is an echocardiogram?",
    "What is a pathologist?",
    "Give one reason to wash your hands.",
    "What is a pixel?",
    "What is radiation?",
    "Name two organs in the abdomen.",
    "What is a scan in medicine?",
    "What is a clinical trial?",
    "What is a healthy diet?",
    "What is a stroke?",
    "What is the skin's function?",
    "What is oxygen needed for?",
    "Describe a rainy day in one sentence.",
    "How do you make tea?",
    "What is the meaning of the word 'fragile'?",
    "Which animal is known as man's best friend?",
)


TOPICS = (
    "a market in the morning",
    "the history of glass",
    "how bread was made in the past",
    "winter in the mountains",
    "the life of bees",
    "a journey by train",
    "why people keep diaries",
    "the invention of printing",
    "how plants take up water",
    "a football match",
    "the work of a nurse",
    "how wounds heal",
    "digestion",
    "how muscles work",
    "the immune system",
    "sleep and health",
    "asthma",
    "how eyes adapt to the dark",
    "the discovery of penicillin",
    "bones and joints",
    "allergies",
    "the thyroid gland",
    "how hearing works",
    "a visit to the dentist",
    "old maps",
    "the moon",
    "volcanoes",
    "how a bridge carries weight",
    "learning to swim",
    "a letter to a friend",
    "the opening of a school",
    "a storm at sea",
    "how money is made",
    "the Roman roads",
    "cooking rice",
    "a small theatre",
    "electric light",
    "how laws are made",
    "the migration of whales",
    "a garden in spring",
    "coffee",
    "how to plan a walk",
    "the first aeroplanes",
    "a museum of toys",
    "wool and weaving",
    "how songs are written",
    "the desert at night",
    "a village and its well",
    "taking a blood sample",
    "how a hospital ward is run",
    "the history of surgery",
    "lungs and breathing",
    "the liver",
    "pain and its treatment",
    "a broken arm",
    "radiology",
    "heart disease",
    "pregnancy",
    "vaccination",
    "growing old",
)
ESSAYS = (
    "Write a paragraph about {}.",
    "Explain {} in simple words.",
    "Tell a short story about {}.",
    "What should everybody know about {}?",
)
USEFUL = (
    "a stethoscope",
    "an electrocardiogram",
    "a blood test",
    "a microscope",
    "a mammogram",
    "an angiogram",
    "positron emission tomography",
    "an ultrasound scan",
    "a colonoscopy",
    "optical coherence tomography",
    "insulin",
    "an antibiotic",
    "a syringe",
    "a pacemaker",
    "dialysis",
    "physiotherapy",
    "a telescope",
    "a compass",
    "a spreadsheet",
    "salt in cooking",
)


@torch.inference_mode()
def replay_conversations(
    model: OmniVMedForConditionalGeneration, processor: OmniVMedProcessor, path: Path
) -> list[Conversation]:
    """The prompts with the model's own answers, and prose about the topics, made once and kept in a JSON file.

    Args:
        model: before its language model is trained.
        path: where the answers are kept; read if it exists.
    """
    if not path.exists():
        questions = [*PROMPTS, *(f"What is {thing} used for?" for thing in USEFUL)]
        essays = [essay.format(topic) for topic in TOPICS for essay in ESSAYS] * DRAWS
        with torch.random.fork_rng():
            torch.manual_seed(SEED)
            pairs = _answered(model, processor, questions, max_new_tokens=LONGEST_ANSWER, do_sample=False)
            drawn = {"do_sample": True, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
            pairs += _answered(model, processor, essays, max_new_tokens=LONGEST_PROSE, **drawn)
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_atomically(path) as part:
            part.write_text(json.dumps(pairs, indent=1), encoding="utf-8")
    return [Conversation(((q, a),)) for q, a in json.loads(path.read_text(encoding="utf-8"))]


def _answered(
    model: OmniVMedForConditionalGeneration, processor: OmniVMedProcessor, prompts: Sequence[str], **how: Any
) -> list[tuple[str, str]]:
    """Prompts and what the model says to them."""
    pairs = []
    for start in range(0, len(prompts), BATCH_SIZE):
        asked = prompts[start : start + BATCH_SIZE]
        chats = [[{"role": "user", "content": [{"type": "text", "text": prompt}]}] for prompt in asked]
        inputs: BatchFeature = processor.apply_chat_template(
            chats, add_generation_prompt=True, tokenize=True, return_dict=True
        )
        output = model.generate(**inputs, **how)
        answers = processor.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        # A cut answer ends with its last whole sentence, so that the end token is never learned in mid-sentence.
        pairs += [(p, a[: a.rfind(".") + 1] or a) for p, a in zip(asked, map(str.strip, answers), strict=True)]
    return pairs
