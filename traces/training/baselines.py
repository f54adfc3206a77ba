"""What counts alone can predict: unigram and bigram cross-entropy, beside which a trained model must look good."""

import numpy as np
from tokens import VOCABULARY

DISCOUNTS = np.arange(0.1, 1.0, 0.05)


def pairs(documents: list[np.ndarray]) -> np.ndarray:
    """int64 [tokens, 2]: every token with the one before it; end-of-text (0) stands before a document's first."""
    return np.concatenate([np.stack([np.concatenate([[0], d[:-1]]), d], axis=1) for d in documents]).astype(np.int64)


class Unigram:
    """Add-one counts of the training tokens."""

    def __init__(self, training: np.ndarray):
        counts = np.bincount(training[:, 1], minlength=VOCABULARY) + 1.0
        self.probability = counts / counts.sum()

    def loss(self, tokens: np.ndarray) -> float:
        """Nats per token on `tokens` [tokens, 2]."""
        return float(-np.log(self.probability[tokens[:, 1]]).mean())


class KneserNeyBigram:
    """Interpolated Kneser-Ney: absolute discount, backing off to how many contexts a token continues.

    p(w | v) = max(c(vw) - D, 0) / c(v) + D * types(v) / c(v) * (types before w + 1) / (all types + vocabulary)
    """

    def __init__(self, training: np.ndarray, discount: float = 0.75):
        self.discount = discount
        self.keys, self.counts = np.unique(training[:, 0] * VOCABULARY + training[:, 1], return_counts=True)
        context, following = np.divmod(self.keys, VOCABULARY)
        self.context_count = np.bincount(context, weights=self.counts, minlength=VOCABULARY)
        self.context_types = np.bincount(context, minlength=VOCABULARY)
        continuation = np.bincount(following, minlength=VOCABULARY) + 1.0
        self.continuation = continuation / continuation.sum()

    def loss(self, tokens: np.ndarray) -> float:
        """Nats per token on `tokens` [tokens, 2]."""
        context, following = tokens[:, 0], tokens[:, 1]
        keys = context * VOCABULARY + following
        place = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        count = np.where(self.keys[place] == keys, self.counts[place], 0)
        seen = np.maximum(self.context_count[context], 1)
        left_over = np.where(self.context_count[context] > 0, self.discount * self.context_types[context] / seen, 1.0)
        probability = np.maximum(count - self.discount, 0) / seen + left_over * self.continuation[following]
        return float(-np.log(probability).mean())

    def tune(self, validation: np.ndarray) -> "KneserNeyBigram":
        """Set the discount that is best on `validation` [tokens, 2]."""
        losses = []
        for self.discount in DISCOUNTS.tolist():
            losses.append(self.loss(validation))
        self.discount = float(DISCOUNTS[int(np.argmin(losses))])
        return self
