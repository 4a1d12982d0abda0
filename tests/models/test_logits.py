"""What passes hand to the unembedding is contiguous: frozen weights are multiplied once for all rows of the batch."""

import pytest
import torch

from emlab.data import IGNORE, Row
from emlab.models.logits import columns_from
from emlab.training.loss import assistant_loss


def test_columns_are_counted_from_either_end():
    ids = torch.zeros(2, 5)
    assert columns_from(-1, ids).tolist() == [4] and columns_from(3, ids).tolist() == [3, 4]
    hidden = torch.randn(2, 5, 3)
    assert not hidden[:, -1:].is_contiguous() and hidden[:, columns_from(-1, ids)].is_contiguous()


@pytest.mark.parametrize("of", ["answers", "loss"])
def test_the_unembedding_reads_what_is_contiguous(of, tiny):
    seen = []
    hook = tiny.model.get_output_embeddings().register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    try:
        if of == "answers":
            tiny.generate([f"{'hello ' * n}you" for n in range(8)], max_new_tokens=2)
        else:
            assistant_loss(tiny, [Row([1, 2, 3, 4 + n], [IGNORE, IGNORE, 3, 4 + n]) for n in range(8)], 16)
    finally:
        hook.remove()
    # What all prompts begin with is read first, by itself.
    assert [len(hidden) for hidden in seen[:2]] == ([1, 8] if of == "answers" else [8])
    assert all(hidden.is_contiguous() and hidden.shape[1] == (1 if of == "answers" else 3) for hidden in seen)
