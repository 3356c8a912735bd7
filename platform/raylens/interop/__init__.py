"""Reading and writing of other programs' checkpoints: OpenAI's, OpenCLIP's, Hugging Face's."""

from raylens.interop.read import Foreign, read_foreign
from raylens.interop.write import FORMATS, write_foreign

__all__ = ["FORMATS", "Foreign", "read_foreign", "write_foreign"]
