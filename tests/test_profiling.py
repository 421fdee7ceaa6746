"""Shares of GPU time from a trace made by hand."""

import time

import pytest

from common import profiling
from common.problems import Problem


def kernel(start, duration):
    return {"cat": "kernel", "ts": start, "dur": duration, "name": "gemm"}


def test_overlapping_kernels_count_once():
    trace = {
        "traceEvents": [
            kernel(300, 100),  # the last, out of order
            kernel(100, 50),
            kernel(120, 60),  # begins in the first and ends after it: 100 to 180 are busy
            kernel(130, 10),  # inside the second
            {"cat": "cpu_op", "ts": 0, "dur": 1000, "name": "aten::mm"},
            {"ph": "M", "name": "process_name"},
        ]
    }
    shares = profiling.kernels(trace, steps=2)
    # From 100 to 400, busy 100 to 180 and 300 to 400.
    assert shares["gpu_busy_pct"] == pytest.approx(180 / 300 * 100)
    assert shares["kernels_per_step"] == 2


def test_kernels_without_gaps_are_busy_all_the_time():
    trace = {"traceEvents": [kernel(10.5, 4.5), kernel(15.0, 5.0)]}
    assert profiling.kernels(trace, steps=1)["gpu_busy_pct"] == pytest.approx(100)


def test_a_trace_without_kernels_is_a_problem():
    with pytest.raises(Problem, match="no GPU kernels"):
        profiling.kernels({"traceEvents": [{"cat": "cpu_op", "ts": 0, "dur": 1}]}, steps=1)


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("nvjet_tst_128x64_64x8_2x1_v_bz_TNT", "matmul"),
        ("void gemvNSP_kernel<__nv_bfloat16>", "matmul"),
        ("sm90_xmma_gemm_bf16bf16_bf16f32_f32", "matmul"),
        ("_C::onednn_mm", "matmul"),
        ("aten::addmm", "matmul"),
        ("void cutlass::device_kernel<flash::FlashAttnFwdSm90<…>>", "attention"),
        ("_C::cpu_attention_with_kv_cache", "attention"),
        ("void vllm::reshape_and_cache_flash_kernel<…>", "KV cache write"),
        ("_C::cpu_attn_reshape_and_cache", "KV cache write"),
        ("void vllm::rms_norm_kernel<c10::BFloat16>", "norm"),
        ("triton_red_fused_add_mean_mul_pow_rsqrt_0", "norm"),
        ("void vllm::act_and_mul_kernel<…>", "activation"),
        ("void vllm::rotary_embedding_kernel<…>", "rotary"),
        ("aten::copy_", "copy"),
        ("aten::add", "other"),
    ],
)
def test_kernels_are_grouped_by_their_names(name, group):
    assert profiling.groups({name: 3.0}) == {group: pytest.approx(100)}


def test_shares_of_groups_are_of_the_time_of_all_kernels():
    shares = profiling.groups({"gemm_a": 50.0, "gemm_b": 10.0, "flash_fwd": 30.0, "something": 10.0})
    assert shares == {"matmul": pytest.approx(60), "attention": pytest.approx(30), "other": pytest.approx(10)}
    assert list(shares) == ["matmul", "attention", "other"]


def test_durations_of_kernels_add_up_by_name():
    events = [kernel(0, 5), kernel(9, 6), {"cat": "cpu_op", "ts": 0, "dur": 99, "name": "gemm"}]
    assert profiling.kernel_durations({"traceEvents": events}) == {"gemm": 11}


def test_the_profile_of_a_cpu_tells_work_from_waiting():
    import torch

    matrix = torch.ones(256, 256)

    def measure(steps):
        for _ in range(steps):
            torch.mm(matrix, matrix)
            time.sleep(0.01)
        return 0.0

    busy_pct, groups = profiling.of_cpu(measure, steps=10)
    assert 0 < busy_pct < 60
    assert next(iter(groups)) == "matmul"
    assert sum(groups.values()) == pytest.approx(100)


@pytest.mark.gpu
def test_real_kernels_of_decode_steps_are_counted():
    import torch

    class Network(torch.nn.Module):
        def forward(self, matrix, kernels):
            for _ in range(kernels):
                matrix.sin()

    network, matrix = Network(), torch.ones(1024, 1024, device="cuda")

    def measure(steps):
        network(matrix, 100)  # the prompt
        for _ in range(steps - 1):
            network(matrix, 3)
        torch.cuda.synchronize()
        return 0.0

    measure(4)
    shares = profiling.of_this_process(network, measure, steps=20)
    assert shares["kernels_per_step"] == pytest.approx(3)
    assert 0 < shares["gpu_busy_pct"] <= 100
    assert not network._forward_hooks
