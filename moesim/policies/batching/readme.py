"""Read-ME: the longest queue of tokens that wait for the same expert decodes first, until the batch is full.

Cai et al., "Read-ME", arXiv 2410.19123: a router before the model chooses each token's experts once, for all layers;
tokens queue by expert, and a batch is filled from the longest queue, then from the longest of what is left. Who does
not fit waits for the next step. In a trace the choice differs by layer, so a queue is here one of a layer's experts,
and all layers' queues count. Ties go to the first queue, and inside a queue to who came first.
"""

from pydantic import Field

from moesim.policies.api import PolicyParams


class Params(PolicyParams):
    """How many requests are to choose from."""

    pool: int = Field(4, ge=1, le=64, description="batches of requests that are in flight")

    @property
    def models_future(self) -> bool:
        """Paths are those of the trace."""
        return True


def group(params: Params, paths, batch):
    """One batch."""
    chosen: list[int] = []
    left = list(range(len(paths)))
    while left and len(chosen) < batch:
        queue = int(paths[left].sum(axis=0).argmax())
        taken = [place for place in left if paths[place, queue]][: batch - len(chosen)] or left[:1]
        chosen += taken
        left = [place for place in left if place not in taken]
    return [sorted(chosen)]
