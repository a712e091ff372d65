# Copyright 2026 The OmniV-Med Authors. Licensed under the Apache License, Version 2.0.
"""How close an open answer is to the true one, and how sure a mean over questions is.

Exact match, BLEU-1 to 4, ROUGE-1, 2 and L, METEOR, and precision, recall and F1 of tokens; every value is a share from
0 to 1. Words are tokens in lower case, and so is each Chinese character.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Sequence

import numpy as np
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu
from nltk.translate.meteor_score import single_meteor_score
from rouge_score.rouge_scorer import RougeScorer
from scipy.stats import bootstrap

from data_engine.answers import normalise

OPEN_METRICS = (
    "em", "bleu1", "bleu2", "bleu3", "bleu4", "rouge1", "rouge2", "rougel", "meteor", "precision", "recall", "f1",
)  # fmt: skip
IDEOGRAPH = "[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
TOKEN = re.compile(rf"{IDEOGRAPH}|\d+(?:\.\d+)+|(?:(?!{IDEOGRAPH})[^\W_])+")
RESAMPLES = 2000
BOOTSTRAP_SEED = 0


def tokens(text: str) -> list[str]:
    """Words, numbers ("2.5" is one) and single Chinese characters of the normalised text; punctuation is dropped."""
    return TOKEN.findall(normalise(text))


def exact_match(prediction: str, answer: str) -> float:
    """1 if both are the same once normalised (see `data_engine.answers.normalise`), else 0."""
    return float(normalise(prediction) == normalise(answer))


def token_overlap(prediction: str, answer: str) -> tuple[float, float, float]:
    """Precision, recall and F1 of the tokens that both hold, each counted as often as it occurs in both.

    Rajpurkar et al. 2016 (SQuAD), section 6.1, but that articles within the text stay. All 0 where a side is empty.
    """
    said, true = Counter(tokens(prediction)), Counter(tokens(answer))
    common = (said & true).total()
    if not common:
        return 0.0, 0.0, 0.0
    precision, recall = common / said.total(), common / true.total()
    return precision, recall, 2 * precision * recall / (precision + recall)


def bleu(prediction: str, answer: str, order: int) -> float:
    """Sentence BLEU (Papineni et al. 2002, section 2.3) up to n-grams of `order`, fit for answers of a few words.

    Plain BLEU-4 of any answer below four words is 0, even of the right one. As sacreBLEU (Post 2018) does for single
    sentences, orders that are longer than the prediction are left out, and an order without a match is smoothed by
    halving (Chen and Cherry 2014, method 3). So the right answer has 1 and one without a common word 0.
    """
    said = tokens(prediction)
    order = min(order, len(said))
    if not order:
        return 0.0
    smoothing = SmoothingFunction().method3
    return float(sentence_bleu([tokens(answer)], said, weights=[1 / order] * order, smoothing_function=smoothing))


class _Tokenizer:
    """`tokens` as rouge-score wants it; its own tokenizer drops all Chinese."""

    def tokenize(self, text: str) -> list[str]:
        return tokens(text)


_ROUGE = RougeScorer(["rouge1", "rouge2", "rougeL"], tokenizer=_Tokenizer())


def rouge(prediction: str, answer: str) -> tuple[float, float, float]:
    """F of ROUGE-1, ROUGE-2 and ROUGE-L (Lin 2004, sections 2 and 3).

    ROUGE-2 of a one-word answer is 0, as it has no pair of words: look at ROUGE-1 and L where answers are short.
    """
    scores = _ROUGE.score(answer, prediction)
    return float(scores["rouge1"].fmeasure), float(scores["rouge2"].fmeasure), float(scores["rougeL"].fmeasure)


class _NoSynonyms:
    """Stands where NLTK asks for WordNet, which is data to download: no word has synonyms."""

    def synsets(self, word: str) -> list:
        return []


def meteor(prediction: str, answer: str) -> float:
    """METEOR by its exact and Porter stem stages; without its stage of synonyms it is mostly a little lower.

    Lavie and Agarwal 2007, section 2, with its parameters for English (0.9, 3, 0.5). Made for sentences: the right
    answer of one word has 0.5, because one word is one chunk.
    """
    return float(single_meteor_score(tokens(answer), tokens(prediction), wordnet=_NoSynonyms()))


def open_scores(prediction: str, answer: str) -> dict[str, float]:
    """Every one of `OPEN_METRICS` for one question."""
    values = (
        exact_match(prediction, answer),
        *(bleu(prediction, answer, order) for order in (1, 2, 3, 4)),
        *rouge(prediction, answer),
        meteor(prediction, answer),
        *token_overlap(prediction, answer),
    )
    return dict(zip(OPEN_METRICS, values, strict=True))


def bootstrap_interval(values: Sequence[float], groups: Sequence[Hashable]) -> tuple[float, float] | None:
    """95 % interval of the mean: percentile bootstrap (Efron 1979) from a fixed seed.

    Questions about one image are right or wrong together, so whole groups are drawn, not questions (the cluster
    bootstrap of Davison and Hinkley 1997, section 3.8). Where all values agree the interval has no width.

    Args:
        values: one per question.
        groups: what each question belongs to, such as its image.

    Returns:
        Lower and upper end; None with fewer than two groups, which say nothing about the spread.
    """
    # Groups in order of their sums: the interval must not depend on the order of the questions.
    sums: dict[Hashable, float] = {}
    for value, group in zip(values, groups, strict=True):
        sums[group] = sums.get(group, 0.0) + value
    counts = Counter(groups)
    if len(counts) < 2:
        return None
    pairs = np.array(sorted((total, counts[group]) for group, total in sums.items()))

    def mean(drawn: np.ndarray, axis: int) -> np.ndarray:
        return pairs[drawn, 0].sum(axis) / pairs[drawn, 1].sum(axis)

    interval = bootstrap(
        (np.arange(len(pairs)),),
        mean,
        n_resamples=RESAMPLES,
        batch=100,
        vectorized=True,
        method="percentile",
        rng=np.random.default_rng(BOOTSTRAP_SEED),
    ).confidence_interval
    return float(interval.low), float(interval.high)
