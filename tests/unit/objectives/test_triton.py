"""The Triton kernels, interpreted on the CPU against fp64 formulas, and compiled for GPUs that need not be there.

Triton reads once, when it is imported, whether it interprets: those tests run in a process of their own.
"""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from raylens.errors import TrainingError
from raylens.objectives.triton.launch import available, exp_gradient, exp_sums

HAS_TRITON = find_spec("triton") is not None
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="Triton is built for Linux")

CPU = torch.device("cpu")
INTERPRETED = Path(__file__).with_name("interpreted_triton.py")


@on_linux
def test_interpreted() -> None:
    options = ["-q", "-p", "no:cacheprovider", "--disable-plugin-autoload", "-p", "_hypothesis_pytestplugin"]
    command = [sys.executable, "-m", "pytest", *options, str(INTERPRETED)]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    run = subprocess.run(
        command, cwd=Path(__file__).parents[3], env=environment, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "skipped" not in run.stdout


def test_available_only_where_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    assert not available(CPU)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert available(CPU) == HAS_TRITON
    assert not available(torch.device("meta"))


def test_operands_that_do_not_fit_are_refused() -> None:
    image_bD, text_BD = torch.randn(4, 8), torch.randn(6, 8)
    one, ones = torch.tensor(1.0), torch.ones(6)
    for image, text in ((image_bD.double(), text_BD), (image_bD, text_BD.bfloat16()), (image_bD.T, text_BD)):
        with pytest.raises(TrainingError, match="embeddings"):
            exp_sums(image, text, one, one, 0, matmul_precision="fp32")
    with pytest.raises(TrainingError, match="out has shape"):
        exp_gradient(image_bD, text_BD, ones[:4], ones, one, one, 0, torch.empty(6, 4).T, matmul_precision="fp32")


POINTERS = {
    **dict.fromkeys(["scale", "shift", "row_sums", "column_sums", "a", "k"], "*fp32"),
    **dict.fromkeys(["b", "B", "D", "m", "stride", "first", "span", "_size"], "i32"),
}


@on_linux
@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize(("operand", "precision"), [("bf16", "ieee"), ("fp32", "tf32")])
@pytest.mark.parametrize("kernel", ["sums", "gradient"])
def test_compiles(
    kernel: str, operand: str, precision: str, capability: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To machine code, with matrix units, and without asking for more registers than there are."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    import triton  # type: ignore[import-not-found, import-untyped, unused-ignore]
    from triton.backends.compiler import GPUTarget  # type: ignore[import-not-found, import-untyped, unused-ignore]

    from raylens.objectives.triton import sums, weights

    function: Any = sums._sums_kernel if kernel == "sums" else weights._gradient_kernel
    constants = {"ROWS": 128, "COLUMNS": 128, "FLATTEN": True, "EVEN": True, "PRECISION": precision}
    constants["DEPTH"] = 64 if operand == "bf16" else 32
    types = {**POINTERS, **dict.fromkeys(["image", "text", "out"], f"*{operand}")}
    signature = {name: "constexpr" if name in constants else types[name] for name in function.arg_names}
    aligned = {(place,): [["tt.divisibility", 16]] for place, name in enumerate(signature) if name in types}
    source = triton.compiler.ASTSource(
        function, signature, {name: value for name, value in constants.items() if name in signature}, aligned
    )
    target = GPUTarget("cuda", capability, 32)
    machine_code = triton.compile(source, target=target, options={"num_warps": 8, "num_stages": 3}).asm["ptx"]
    assert ("wgmma.mma_async" if capability == 90 else "mma.sync") in machine_code
    assert "cp.async" in machine_code
