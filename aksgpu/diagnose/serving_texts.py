"""Texts of model servers, such as vLLM, about the GPU's memory and the number of GPUs."""

from __future__ import annotations

from aksgpu.diagnose.cures import EDIT_JOB_SHELL, RUN_AGAIN, Cure, edit_job
from aksgpu.diagnose.failure_text import FailureText

__all__ = ["SERVING_TEXTS"]

SERVING_TEXTS = (
    FailureText(
        name="the GPU's memory is too small for the context",
        pattern=r"larger than the (?:available KV cache memory|maximum number of tokens that can be stored in KV cache)"
        r"|KV cache is larger than the available|No available memory for the cache blocks"
        r"|Not enough memory\. Please try increasing --mem-fraction-static",
        verdict="the GPU's memory is too small for the model and the length of its context",
        cure=Cure(
            "Pass a smaller --max-model-len (vLLM names the largest that fits) or a larger --gpu-memory-utilization "
            "(SGLang: --mem-fraction-static), use more GPUs (--tensor-parallel-size), or a VM size with more GPU "
            "memory: sizes.gpu_sizes(aks.azure, aks.location).",
            edit_job('pod["containers"][0].setdefault("args", []).append("--max-model-len=8192")'),
            EDIT_JOB_SHELL,
            "Pass a smaller --max-model-len (vLLM names the largest that fits) or a larger --gpu-memory-utilization, "
            "use more GPUs (--tensor-parallel-size), or a node whose GPU has more memory.",
        ),
        example="ValueError: To serve at least one request with the models's max seq len (131072), (16.00 GiB KV cache "
        "is needed, which is larger than the available KV cache memory (7.04 GiB).",
        near_miss="Available KV cache memory: 18.78 GiB",
        source="https://github.com/vllm-project/vllm/issues/16118",
    ),
    FailureText(
        name="less GPU memory is free than the server takes",
        pattern=r"is less than desired GPU memory utilization",
        verdict="the GPU has less free memory than vLLM reserves: another process uses the GPU too, or an "
        "earlier one has not ended",
        cure=Cure(
            "End the other process, or pass a smaller --gpu-memory-utilization. capacity.gpus(aks) shows which pods "
            "use the GPUs: pods that share a GPU by time-slicing share its memory too.",
            edit_job('pod["containers"][0].setdefault("args", []).append("--gpu-memory-utilization=0.4")'),
            EDIT_JOB_SHELL,
        ),
        example="ValueError: Free memory on device (11.22/79.10 GiB) on startup is less than desired GPU memory "
        "utilization (0.9, 71.19 GiB).",
        near_miss="GPU memory utilization: 0.9",
        source="https://docs.vllm.ai/en/latest/configuration/conserving_memory/",
    ),
    FailureText(
        name="the model cannot be divided among the GPUs",
        pattern=r"must be divisible by (?:the )?tensor parallel size|is not divisible by (?:the )?(?:tensor parallel"
        r"|number of GPUs|weight partition)",
        verdict="the model cannot be divided evenly among this number of GPUs",
        cure=Cure(
            "Pass a --tensor-parallel-size that divides the numbers in the message, such as 1, 2 or 4, and ask for "
            f"that many GPUs; {RUN_AGAIN}",
            edit_job('pod["containers"][0].setdefault("args", []).append("--tensor-parallel-size=2")'),
            EDIT_JOB_SHELL,
        ),
        example="ValueError: Total number of attention heads (28) must be divisible by tensor parallel size (8).",
        near_miss="tensor parallel size: 4",
        source="https://docs.vllm.ai/en/latest/serving/parallelism_scaling/",
    ),
)
"""Model servers. They come before the rows about memory, whose cure is a smaller batch."""
