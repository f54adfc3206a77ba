"""From text to tokens: a byte-level BPE tokeniser trained on the training documents, and the token streams."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from corpus import SPLIT_BYTES, Corpus
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

VOCABULARY = 2048
END_OF_TEXT = "<|endoftext|>"  # token 0: stands before every document


@dataclass(frozen=True)
class TokenStreams:
    """`documents[split][domain]`: one int32 array of token ids per document, without the end-of-text token."""

    documents: dict[str, list[list[np.ndarray]]]
    bytes: dict[str, int]

    def tokens(self, split: str) -> int:
        """The number of tokens of a split."""
        return sum(len(tokens) for domain in self.documents[split] for tokens in domain)


def train_tokenizer(corpus: Corpus, path: Path) -> Tokenizer:
    """The BPE tokeniser of the corpus's training part; kept at `path` and read from there the next time."""
    if path.exists():
        return Tokenizer.from_file(str(path))
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((text for texts in corpus.documents["train"] for text in texts), trainer)
    tokenizer.save(str(path))
    return tokenizer


def encode(corpus: Corpus, tokenizer: Tokenizer) -> TokenStreams:
    """Encode every document of the corpus."""
    streams: dict[str, list[list[np.ndarray]]] = {}
    size = dict.fromkeys(SPLIT_BYTES, 0)
    for split, domains in corpus.documents.items():
        streams[split] = []
        for texts in domains:
            size[split] += sum(len(text.encode()) for text in texts)
            encoded = tokenizer.encode_batch(texts)
            streams[split].append([np.asarray(document.ids, dtype=np.int32) for document in encoded])
    return TokenStreams(streams, size)


def windows(documents: list[np.ndarray], length: int) -> np.ndarray:
    """int32 [windows, length + 1]: documents cut so that each token is predicted once, padded with -1.

    A window begins with the token before the first that it predicts (end-of-text at a document's start).
    """
    rows = []
    for document in documents:
        tokens = np.concatenate([[0], document]).astype(np.int32)
        for start in range(0, len(tokens) - 1, length):
            row = np.full(length + 1, -1, dtype=np.int32)
            piece = tokens[start : start + length + 1]
            row[: len(piece)] = piece
            rows.append(row)
    return np.stack(rows)
