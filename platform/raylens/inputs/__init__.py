"""The way from images and texts to arrays: the same code in training, evaluation and serving."""

from typing import TYPE_CHECKING

from raylens.lazy import lazy_face

if TYPE_CHECKING:
    from raylens.inputs.image import decode_image, image_size
    from raylens.inputs.preprocess import CLIP_MEAN, CLIP_STD, CropDraw, Preprocess
    from raylens.inputs.prompts import CAPTION_TEMPLATES, check_class_names, fill_templates
    from raylens.inputs.tokenizer import Tokenizer
    from raylens.inputs.vocabulary import count_words

__all__ = [
    "CAPTION_TEMPLATES",
    "CLIP_MEAN",
    "CLIP_STD",
    "CropDraw",
    "Preprocess",
    "Tokenizer",
    "check_class_names",
    "count_words",
    "decode_image",
    "fill_templates",
    "image_size",
]

__getattr__ = lazy_face(
    __name__,
    {
        "CAPTION_TEMPLATES": "prompts",
        "CLIP_MEAN": "preprocess",
        "CLIP_STD": "preprocess",
        "CropDraw": "preprocess",
        "Preprocess": "preprocess",
        "Tokenizer": "tokenizer",
        "check_class_names": "prompts",
        "count_words": "vocabulary",
        "decode_image": "image",
        "fill_templates": "prompts",
        "image_size": "image",
    },
)
