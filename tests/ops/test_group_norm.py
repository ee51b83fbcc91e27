"""Group norm and ReLU: by hand, in half precision, and by the kernels for GPUs."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from cuda_simulation import OnCuda

from rfla.ops import group_norm
from rfla.ops.group_norm import compiled_kernels, group_norm_relu


@pytest.fixture
def no_memory() -> Iterator[None]:
    """`compiled_kernels` forgets what it has tried."""
    compiled_kernels.cache_clear()
    yield
    compiled_kernels.cache_clear()


def test_by_hand() -> None:
    """Groups (1, 3) and (4, 8): means 2 and 6, deviations 1 and 2."""
    features = torch.tensor([1.0, 3.0, 4.0, 8.0]).view(1, 4, 1, 1)
    weight, bias = torch.tensor([1.0, 2.0, 1.0, 3.0]), torch.tensor([1.5, 0.0, 0.0, 1.0])
    out = group_norm_relu(features, 2, weight, bias, 0.0)
    assert out.flatten().tolist() == [0.5, 2.0, 0.0, 4.0]


def test_half_precision_is_float32_rounded() -> None:
    """Output and gradient are those of float32, rounded once."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 8, 5, 6, generator=generator).bfloat16()
    features = features.contiguous(memory_format=torch.channels_last)
    slope = torch.randn(2, 8, 5, 6, generator=generator).bfloat16()
    given = [features.clone().requires_grad_(), features.float().requires_grad_()]
    outputs = []
    for each in given:
        with torch.autocast("cpu", torch.bfloat16):
            outputs.append(group_norm_relu(each, 4, torch.ones(8), torch.zeros(8), 1e-5))
        outputs[-1].backward(slope.to(each.dtype))
    assert outputs[0].dtype == torch.bfloat16
    assert torch.equal(outputs[0], outputs[1].bfloat16())
    assert given[0].grad is not None and given[1].grad is not None
    assert torch.equal(given[0].grad, given[1].grad.bfloat16())


def test_a_trace_on_a_cpu_computes_what_the_network_does() -> None:
    features, weight = torch.randn(2, 8, 5, 6).half(), torch.ones(8).half()

    def norm(each: torch.Tensor) -> torch.Tensor:
        return group_norm_relu(each, 4, weight, weight, 1e-5)

    traced = torch.jit.trace(norm, (features,))
    assert torch.equal(traced(features), norm(features))
    assert "aten::to" in str(traced.graph)  # to float32 and back


@pytest.mark.parametrize(
    ("dtype", "runs"), [(torch.bfloat16, True), (torch.float16, True), (torch.float32, False)]
)
def test_kernels_run_for_half_precision_on_a_gpu(
    dtype: torch.dtype, runs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def apply(features: torch.Tensor, *given: Any) -> torch.Tensor:
        asked.append(given[0])
        return features

    kernels = SimpleNamespace(GroupNormReLU=SimpleNamespace(apply=apply))
    monkeypatch.setattr(group_norm, "compiled_kernels", lambda device: kernels)
    features = OnCuda(torch.ones(1, 4, 2, 2, dtype=dtype))
    weight = OnCuda(torch.ones(4, dtype=dtype))
    group_norm_relu(features, 2, weight, weight, 1e-5)
    assert asked == ([2] if runs else [])


@pytest.mark.usefixtures("no_memory")
def test_without_triton_it_is_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rfla.ops.group_norm_kernels", None)
    assert compiled_kernels(torch.device("cuda", 0)) is None


@pytest.mark.usefixtures("no_memory")
def test_kernels_that_do_not_compile_are_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def apply(*given: Any) -> torch.Tensor:
        raise RuntimeError("Failed to find C compiler")

    broken = SimpleNamespace(GroupNormReLU=SimpleNamespace(apply=apply))
    monkeypatch.setitem(sys.modules, "rfla.ops.group_norm_kernels", broken)
    monkeypatch.setattr("rfla.ops.group_norm_kernels", broken, raising=False)
    with pytest.warns(UserWarning, match="could not compile group norm.*Failed to find C compiler"):
        assert compiled_kernels(torch.device("cpu")) is None
    assert compiled_kernels(torch.device("cpu")) is None  # and no second warning


@pytest.mark.skipif(sys.platform != "linux", reason="PyTorch brings triton along on Linux alone")
def test_kernels_are_torchs_group_norm() -> None:
    script = Path(__file__).with_name("interpreted_group_norm.py")
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, str(script)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="PyTorch brings triton along on Linux alone")
def test_kernels_compile_for_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each reads and writes 16 bytes at a time, which is what makes it fast."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from rfla.ops import group_norm_kernels as kernels

    tile = {"C": 96, "COLUMNS": 128, "ROWS": 32}
    grouped = {"C": 96, "GROUPS": 32, "G_": 32, "P_": 4}
    for kernel, constants, reads, writes in (
        (kernels.sum_map, tile | {"STEPS": 32}, 4, 0),
        (kernels.sum_gradient, tile | {"STEPS": 32}, 8, 0),
        (kernels.factors_of_map, grouped, 0, 0),
        (kernels.factors_of_gradient, grouped, 0, 0),
        (kernels.apply_to_map, tile, 4, 4),
        (kernels.apply_to_gradient, tile, 8, 4),
    ):
        types = {}
        for name in kernel.arg_names:
            kind = "*fp32" if name.endswith("_ptr") else "i32"
            kind = "*bf16" if name in ("x_ptr", "y_ptr", "g_ptr", "dx_ptr") else kind
            kind = "fp32" if name == "eps" else kind
            types[name] = "constexpr" if name in constants else kind
        aligned = {
            (place,): [["tt.divisibility", 16]]
            for place, name in enumerate(kernel.arg_names)
            if name.endswith("_ptr")
        }
        source = ASTSource(kernel, types, constexprs=constants, attrs=aligned)
        code = triton.compile(source, target=GPUTarget("cuda", 80, 32)).asm["ptx"]
        assert code.count("ld.global.v4") == reads, kernel.__name__
        assert code.count("st.global.v4") == writes, kernel.__name__
