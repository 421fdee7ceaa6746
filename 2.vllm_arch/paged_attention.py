"""Paged attention in about a hundred lines: a decoder whose keys and values live in blocks, and tables to find them.

The K and V of a sequence need not lie side by side. They are kept in blocks of `block_size` tokens, and each sequence
has a block table: the numbers of its blocks, in order. Position p stands in block `block_table[p // block_size]`, at
place `p % block_size`. So memory is taken a block at a time, two sequences can have the same block, and every free
block is as good as any other. That is the idea of Kwon et al., "Efficient Memory Management for Large Language Model
Serving with PagedAttention" (SOSP 2023).

This decoder computes course-lm, or another small Qwen3 model, in plain PyTorch, several sequences of any length at a
time. It copies blocks before it attends to them, where vLLM's kernels read them in place: the answers are the same
(same_answers in demo.py), the speed is not.
"""

import json
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from common.problems import Problem


class OutOfBlocks(Exception):
    """No block is free. A scheduler now preempts a sequence: frees its blocks and computes it again later."""


class BlockPool:
    """The physical blocks by number: which are free, and how many sequences use each of the others.

    Block 0 is never handed out. What pads a batch is written there, as in vLLM, where it is the null block.
    """

    def __init__(self, num_blocks: int):
        self.free = deque(range(1, num_blocks))
        self.ref_count = [0] * num_blocks

    def take(self) -> int:
        if not self.free:
            raise OutOfBlocks(f"all {len(self.ref_count) - 1} blocks are in use")
        block = self.free.popleft()
        self.ref_count[block] = 1
        return block

    def release(self, block: int) -> None:
        self.ref_count[block] -= 1
        if self.ref_count[block] == 0:
            self.free.append(block)


@dataclass(eq=False)  # two sequences of the same tokens are still two
class Sequence:
    """The tokens of a prompt and its answer. The K and V of the first `num_computed_tokens` are in the blocks."""

    tokens: list[int]
    block_table: list[int] = field(default_factory=list)
    num_computed_tokens: int = 0


class PagedDecoder:
    """A Qwen3 model (the files of `folder`) and `num_blocks` blocks of KV cache, one of which is the null block."""

    def __init__(self, folder: Path | str, num_blocks: int = 1024, block_size: int = 16, dtype=torch.float32):
        self.config = json.loads((Path(folder) / "config.json").read_text())
        if self.config["model_type"] != "qwen3":
            raise Problem(
                "paged_attention.py reads Qwen3 models only.", f"Take course-lm; this is {self.config['model_type']}."
            )
        self.weights: dict[str, Tensor] = {}
        for file in sorted(Path(folder).glob("*.safetensors")):
            self.weights |= {name: tensor.to(dtype) for name, tensor in load_file(file).items()}
        layers, self.kv_heads = self.config["num_hidden_layers"], self.config["num_key_value_heads"]
        self.head_dim, self.block_size = self.config["head_dim"], block_size
        self.pool = BlockPool(num_blocks)
        shape = (layers, num_blocks, block_size, self.kv_heads, self.head_dim)
        self.k_cache, self.v_cache = torch.zeros(shape, dtype=dtype), torch.zeros(shape, dtype=dtype)

    # ---- the block table: what the scheduler's side of vLLM does

    def make_room(self, sequence: Sequence) -> None:
        """Blocks for all tokens of the sequence. Raises OutOfBlocks, and Problem for more tokens than the context."""
        tokens, context = len(sequence.tokens), self.config["max_position_embeddings"]
        if not 0 < tokens <= context:
            raise Problem(
                f"A sequence has 1 to {context:,} tokens, this one {tokens:,}.", "Shorten it, or answer less."
            )
        table, last = sequence.block_table, sequence.num_computed_tokens // self.block_size
        if last < len(table) and self.pool.ref_count[table[last]] > 1:  # about to write what others read:
            own = self.pool.take()  # copy on write
            self.k_cache[:, own] = self.k_cache[:, table[last]]
            self.v_cache[:, own] = self.v_cache[:, table[last]]
            self.pool.release(table[last])
            table[last] = own
        while len(table) * self.block_size < len(sequence.tokens):
            table.append(self.pool.take())

    def fork(self, parent: Sequence) -> Sequence:
        """A second sequence that goes on from the same tokens, on the same blocks."""
        for block in parent.block_table:
            self.pool.ref_count[block] += 1
        return Sequence(list(parent.tokens), list(parent.block_table), parent.num_computed_tokens)

    def free(self, sequence: Sequence) -> None:
        for block in sequence.block_table:
            self.pool.release(block)
        sequence.block_table, sequence.num_computed_tokens = [], 0

    # ---- the model: what the worker's side does

    @torch.inference_mode()
    def step(self, sequences: list[Sequence]) -> Tensor:
        """Compute the tokens that have no K and V yet: a whole prompt, or one token. Returns logits [sequences, vocab].

        Rows of the batch are padded to the longest; position and slot 0 of the padding are in the null block.
        """
        rows = []
        for sequence in sequences:
            self.make_room(sequence)
            positions = torch.arange(sequence.num_computed_tokens, len(sequence.tokens))
            table = torch.tensor(sequence.block_table)
            slots = table[positions // self.block_size] * self.block_size + positions % self.block_size
            rows.append((torch.tensor(sequence.tokens)[positions], positions, slots, table))
        tokens, positions, slots, tables = (pad_sequence(part, batch_first=True) for part in zip(*rows, strict=True))
        x = self.weights["model.embed_tokens.weight"][tokens]
        for layer in range(len(self.k_cache)):
            name = f"model.layers.{layer}."
            normed = self.norm(x, name + "input_layernorm")
            x = x + self.attention(normed, layer, name + "self_attn.", positions, slots, tables)
            x = x + self.mlp(self.norm(x, name + "post_attention_layernorm"), name + "mlp.")
        last = torch.tensor([len(row[0]) - 1 for row in rows])
        for sequence in sequences:
            sequence.num_computed_tokens = len(sequence.tokens)
        return F.linear(self.norm(x[range(len(rows)), last], "model.norm"), self.weights["model.embed_tokens.weight"])

    def attention(self, x: Tensor, layer: int, name: str, positions: Tensor, slots: Tensor, tables: Tensor) -> Tensor:
        """Attention of the new tokens, x [sequences, new tokens, hidden], to all that their block tables lead to."""
        heads = (self.linear(x, name + part) for part in ("q_proj", "k_proj", "v_proj"))
        q, k, v = (projected.unflatten(-1, (-1, self.head_dim)) for projected in heads)
        q = self.rotate(self.norm(q, name + "q_norm"), positions)
        k = self.rotate(self.norm(k, name + "k_norm"), positions)
        self.k_cache[layer].flatten(0, 1)[slots] = k  # write each token's K and V into its slot
        self.v_cache[layer].flatten(0, 1)[slots] = v
        keys = self.k_cache[layer][tables].flatten(1, 2)  # gather the blocks: place j is the token of position j
        values = self.v_cache[layer][tables].flatten(1, 2)
        mask = torch.arange(keys.shape[1]) <= positions[:, None, :, None]  # a token sees itself and those before it
        q, keys, values = q.transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2)
        out = F.scaled_dot_product_attention(q, keys, values, attn_mask=mask, enable_gqa=True)
        return self.linear(out.transpose(1, 2).flatten(2), name + "o_proj")

    def mlp(self, x: Tensor, name: str) -> Tensor:
        gated = F.silu(self.linear(x, name + "gate_proj")) * self.linear(x, name + "up_proj")
        return self.linear(gated, name + "down_proj")

    def linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self.weights[f"{name}.weight"])

    def norm(self, x: Tensor, name: str) -> Tensor:
        return F.rms_norm(x, x.shape[-1:], self.weights[f"{name}.weight"], self.config["rms_norm_eps"])

    def rotate(self, x: Tensor, positions: Tensor) -> Tensor:
        """Rotary position embedding of x [sequences, tokens, heads, head_dim]."""
        theta = self.config["rope_parameters"]["rope_theta"]
        angle = positions[..., None, None] * theta ** -(torch.arange(0, self.head_dim, 2) / self.head_dim)
        cos, sin = (torch.cat((part, part), -1).to(x.dtype) for part in (angle.cos(), angle.sin()))
        first, second = x.chunk(2, -1)
        return x * cos + torch.cat((-second, first), -1) * sin

    # ---- greedy answers of many prompts at once

    def generate(self, prompts: list[list[int]], max_tokens: int, stop: tuple[int, ...] = ()) -> list[list[int]]:
        """The greedy answers: at most `max_tokens` tokens each, up to a `stop` token, which is included."""
        sequences = [Sequence(list(prompt)) for prompt in prompts]
        running = dict(zip(sequences, map(len, prompts), strict=True))
        while running:
            for sequence, token in zip(running, self.step(list(running)).argmax(-1).tolist(), strict=True):
                sequence.tokens.append(token)
            for sequence, prompt_tokens in list(running.items()):
                if sequence.tokens[-1] in stop or len(sequence.tokens) - prompt_tokens == max_tokens:
                    self.free(sequence)
                    del running[sequence]
        return [sequence.tokens[len(prompt) :] for sequence, prompt in zip(sequences, prompts, strict=True)]
