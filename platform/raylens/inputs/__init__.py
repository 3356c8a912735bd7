"""The way from images and texts to arrays: the same code in training, evaluation and serving."""

from typing import TYPE_CHECKING

from raylens.lazy import lazy_face

if TYPE_CHECKING:
    from raylens.inputs.image import decode_image
    from raylens.inputs.preprocess import CropDraw, Preprocess
    from raylens.inputs.prompts import CAPTION_TEMPLATES, check_class_names, fill_templates
    from raylens.inputs.tokenizer import Tokenizer

__all__ = [
    "CAPTION_TEMPLATES",
    "CropDraw",
    "Preprocess",
    "Tokenizer",
    "check_class_names",
    "decode_image",
    "fill_templates",
]

__getattr__ = lazy_face(
    __name__,
    {
        "CAPTION_TEMPLATES": "prompts",
        "CropDraw": "preprocess",
        "Preprocess": "preprocess",
        "Tokenizer": "tokenizer",
        "check_class_names": "prompts",
        "decode_image": "image",
        "fill_templates": "prompts",
    },
)
