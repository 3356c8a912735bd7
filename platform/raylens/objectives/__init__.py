"""Training objectives: pure functions of embeddings, in torch alone (and Triton on a GPU).

    contrastive_loss    the symmetric contrastive loss over the global batch, without its logit matrix
    contrastive_dense   the same loss with the matrix kept between the passes, for small batches
    sigmoid_loss        the sigmoid loss of SigLIP, in the same memory
    triplet_loss        the triplet margin loss, the classical baseline
    bag_of_words_loss   the loss of predicting a caption's words from its image
    caption_loss        the loss of predicting a caption from its image
    TileSize            how many logits of a loss exist at a time
    capped_log_scale    the cap on the learned logit scale, as a function instead of a clamp after the step
    initial_log_scale   where the learned parameter starts

The losses know neither Ray nor DeepSpeed: with one process nothing needs to be initialised, with several only
``torch.distributed``.
"""

from typing import TYPE_CHECKING

from raylens.lazy import lazy_face
from raylens.objectives.contrastive import contrastive_dense, contrastive_loss
from raylens.objectives.logit_scale import capped_log_scale, initial_log_scale
from raylens.objectives.predictive import bag_of_words_loss, caption_loss
from raylens.objectives.sigmoid import sigmoid_loss
from raylens.objectives.tiles import TileSize
from raylens.objectives.triplet import triplet_loss

if TYPE_CHECKING:
    from raylens.objectives.contrastive import DENSE_ENTRIES
    from raylens.objectives.tiles import FUSED_ENTRIES, TILE

__all__ = [
    "DENSE_ENTRIES",
    "FUSED_ENTRIES",
    "TILE",
    "TileSize",
    "bag_of_words_loss",
    "capped_log_scale",
    "caption_loss",
    "contrastive_dense",
    "contrastive_loss",
    "initial_log_scale",
    "sigmoid_loss",
    "triplet_loss",
]

__getattr__ = lazy_face(
    __name__,
    {
        "DENSE_ENTRIES": "contrastive",
        "FUSED_ENTRIES": "tiles",
        "TILE": "tiles",
    },
)
