# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""What words tell where a source does not say it: the modality a text names, and the task a question belongs to."""

from __future__ import annotations

import re

MODALITY_WORDS: tuple[tuple[str, str], ...] = (
    # Names of two modalities come first, so that a CT angiogram is not counted as both.
    ("PET", r"(?i:PET[ /-]?(CT|MRI?))"),
    ("CT", r"(?i:(CT|computed tomograph\w*)[ -]angiogra\w*)|CTA"),
    ("MRI", r"(?i:(MRI?|magnetic resonance)[ -]angiogra\w*)|MRA"),
    ("fundus photography", r"(?i:fundus (photo\w*|images?)|fundoscop\w*)"),
    ("OCT", r"OCT|(?i:optical coherence tomogra\w*)"),
    ("CT", r"(?i:CTs?|HRCT|CBCT|computed tomogra\w*)"),
    ("MRI", r"(?i:MRIs?|magnetic resonance|T[12][ -]weighted)|MR|FLAIR"),
    ("X-ray", r"(?i:x[ -]?rays?|(tele)?radiogra\w*|chest film|CXR)"),
    ("ultrasound", r"(?i:ultraso\w*|sonogra\w*|echocardiogra\w*|Doppler)"),
    ("PET", r"PET|(?i:PET scan\w*|positron emission tomogra\w*)"),
    ("mammography", r"(?i:mammogra\w*)"),
    ("angiography", r"(?i:angiogra\w*)"),
    ("endoscopy", r"(?i:\w*(endo|colono|gastro|broncho|laparo|cysto)scop\w*)"),
    ("dermoscopy", r"(?i:dermo?scop\w*|dermatoscop\w*)"),
    ("histopathology", r"(?i:H ?& ?E|ha?ematoxylin|histolog\w*|histopatholog\w*|immunohistochem\w*)"),
    ("microscopy", r"(?i:(electron|fluorescence|confocal|light) micro(scop\w*|graph\w*))"),
    ("clinical photograph", r"(?i:(clinical|intraoperative) photo\w*)"),
)
"""Modality, and the whole words that name it; abbreviations that are words as well (OCT, PET) count in capitals."""

TASK_WORDS: tuple[tuple[str, str], ...] = (
    (
        "modality recognition",
        r"modalit|imaging technique|weighted|contrast|\bis (this|it) an? (ct|mri|mr|x-?ray|ultrasound)\b"
        r"|(what|which) (type|kind|sort) of (image|imaging|scan|study|picture)"
        r"|how (was|is) (this|the) (image|scan|picture) (taken|acquired)",
    ),
    ("view/plane identification", r"\bplane\b|\bview\b|projection|axial|coronal|sagittal|\b(pa|ap)\b|cross[- ]section"),
    (
        "counting and measurement",
        r"how (many|much|large|big|wide|long|thick)|\bnumber of\b|\bcount\b|\bsize\b|diameter|\bmeasure",
    ),
    ("severity grading", r"\bgrade|\bstage\b|\bsever(e|ity)\b|how advanced"),
    (
        "localization",
        r"\bwhere\b|locat|\bposition|left or right|(what|which) (side|lobe|quadrant|hemisphere)|on the (left|right)",
    ),
    ("report generation and captioning", r"^(please |can you )?(describe|caption|summari[sz]e)\b|\b(report|caption)\b"),
    ("temporal and procedure understanding", r"\bprocedure|\binstrument|\bsurgeon|next step|\bhappen"),
    (
        "anatomy recognition",
        r"(what|which) (organ|structure|bone|vessel|body part|part of the body|region)|organ system|anatom",
    ),
    ("diagnosis", r"diagnos|(what|which) (disease|condition|disorder|syndrome|tumou?r|cancer)|cause[ds]?\b|a?etiology"),
)
"""Task, and the words of a question that make it one; the first that fits counts."""


def guess_modality(words: str) -> str:
    """The modality that a text names; "unknown" where it names none or several."""
    found = set()
    for modality, pattern in MODALITY_WORDS:
        words, count = re.subn(rf"(?<!\w)({pattern})(?!\w)", " ", words)
        if count:
            found.add(modality)
    return found.pop() if len(found) == 1 else "unknown"


def modality_named_in(question: str, answer: str) -> str:
    """The modality that a question names in passing; one that asks for the modality is told by its answer."""
    return guess_modality(answer if task_of(question) == "modality recognition" else question)


def task_of(question: str) -> str:
    """The task of an English question by its words; "abnormality detection", the commonest, where they do not tell."""
    fitting = (task for task, pattern in TASK_WORDS if re.search(pattern, question, re.IGNORECASE))
    return next(fitting, "abnormality detection")
