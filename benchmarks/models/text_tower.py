"""The text tower of ViT-B/32 without padding, beside OpenCLIP's, which computes all 77 places of every text.

Forward and backward, the same weights and the same outputs; ours and theirs take turns. Prints one JSON object a claim.
"""

import argparse
import importlib.metadata
import json
import time
from collections.abc import Callable
from statistics import median

import torch
from torch import Tensor

from benchmarks.models.peers import caption_lengths, ids_of, open_clip, openclip_config
from raylens.inputs.preprocess import CLIP_MEAN, CLIP_STD
from raylens.interop.names import from_openclip
from raylens.models import DualEncoder

NAME = "ViT-B-32-quickgelu"
END = 49_407
Encode = Callable[[Tensor], Tensor]


def seconds(encode: Encode, ids: Tensor, clear: Callable[[], None]) -> tuple[float, Tensor]:
    clear()
    began = time.perf_counter()
    out = encode(ids)
    out.square().sum().backward()
    if ids.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - began, out.detach()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=7)
    options = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        torch.set_num_threads(2)
    theirs = open_clip().create_model(NAME).to(device).train()
    ours = DualEncoder(openclip_config(NAME), end_id=END, mean=CLIP_MEAN, std=CLIP_STD)
    ours.load_state_dict(from_openclip(theirs.state_dict()))
    ours.to(device).train()
    version = importlib.metadata.version("open_clip_torch")
    cases = {str(length): [length] * options.batch for length in (8, 16, 32, 77)}
    for name, lengths in {**cases, "captions": caption_lengths(options.batch)}.items():
        ids = ids_of(lengths).to(device)
        rows = []
        for _ in range(options.steps + 1):
            mine, found = seconds(ours.encode_text, ids, ours.zero_grad)
            peer, wanted = seconds(lambda ids: theirs.encode_text(ids, normalize=True), ids, theirs.zero_grad)
            rows.append((mine, peer))
        ratios = [peer / mine for mine, peer in rows[1:]]
        claim = {
            "claim": f"text_tower_{name}",
            "value": round(median(ratios), 2),
            "unit": "x",
            "peer": f"open_clip_torch {version}",
            "wanted": "",
            "rounds": [round(min(ratios), 2), round(max(ratios), 2)],
            "texts_per_second": [round(options.batch / median(row[side] for row in rows[1:]), 1) for side in (0, 1)],
            "largest_difference": float((found - wanted).norm(dim=-1).max()),
            "device": str(device),
        }
        print(json.dumps(claim), flush=True)


if __name__ == "__main__":
    main()
