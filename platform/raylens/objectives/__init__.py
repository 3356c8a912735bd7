"""Training objectives: pure functions of embeddings, in torch alone.

    contrastive_loss    the symmetric contrastive loss over the global batch, without its logit matrix
    sigmoid_loss        the sigmoid loss of SigLIP, in as little memory
    capped_log_scale    the cap on the learned logit scale, as a function in place of a clamp after the step
    initial_log_scale   where the learned parameter starts

No Ray and no DeepSpeed here: with one process nothing needs to be initialised, with several only
``torch.distributed``.
"""

from raylens.objectives.contrastive import contrastive_loss
from raylens.objectives.logit_scale import capped_log_scale, initial_log_scale
from raylens.objectives.sigmoid import sigmoid_loss

__all__ = ["capped_log_scale", "contrastive_loss", "initial_log_scale", "sigmoid_loss"]
