"""No bag of words tells chosen from rejected on the held-out templates of the demo set."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from plot_exp.data.demo import generate

WORDS_AND_MARKS = r"\w+|[^\w\s]+"


@pytest.mark.parametrize("vectorizer", [CountVectorizer, TfidfVectorizer])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_unigrams_do_not_decide(
    seed: int, vectorizer: type[CountVectorizer] | type[TfidfVectorizer]
) -> None:
    split = generate(3000, seed)
    texts = [
        [response for example in part for response in example.responses]
        for part in (split.train, split.validation)
    ]
    bag = vectorizer(token_pattern=WORDS_AND_MARKS)
    train, held_out = bag.fit_transform(texts[0]), bag.transform(texts[1])
    is_chosen = np.tile([1, 0], len(split.train))
    classifier = LogisticRegression(max_iter=2000).fit(train, is_chosen)
    scores = classifier.decision_function(held_out).reshape(-1, 2)
    accuracy = np.mean((scores > 0) == [True, False])
    pairs = np.mean((scores[:, 0] > scores[:, 1]) + 0.5 * (scores[:, 0] == scores[:, 1]))
    assert 0.4 <= accuracy <= 0.7
    assert pairs <= 0.75
