"""Checkpoints of other programs, read into bundles and written from them: OpenAI's, OpenCLIP's, Hugging Face's."""

from raylens.interop.read import Foreign, read_foreign
from raylens.interop.write import FORMATS, write_foreign

__all__ = ["FORMATS", "Foreign", "read_foreign", "write_foreign"]
