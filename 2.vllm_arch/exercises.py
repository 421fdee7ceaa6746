"""The exercises of 2.vllm_arch. Write what raises NotImplementedError, then: make check CH=2

The check says in words what is still wrong; it never asks for more than the docstring says. Print what you like:
it is shown. `solutions.py` in this folder passes the same checks, and a test holds ours against vLLM's own block
manager. Try first.

  1  The block table        BlockManager.allocate, append, fork, free, slot         40 minutes
  2  The blocks of a mix    blocks_alone, blocks_together                           25 minutes
  3  What is wasted         wasted_in_pieces, wasted_in_blocks, fitting             20 minutes
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

# ---------------------------------------------------------------------- 1. the block table
#
# The bookkeeping of paged attention, without any tensor: which sequence has which blocks. It is what lies between
# "this sequence has one more token" and "write its key and value there". Contents of blocks are the caller's affair;
# your code says which block to write to, and which one to copy first.


class OutOfBlocks(Exception):
    """There are not as many free blocks as the call needs. Nothing has been changed."""


class BlockManager:
    """The block tables of all sequences over one pool of `num_blocks` blocks of `block_size` tokens each."""

    def __init__(self, num_blocks: int, block_size: int) -> None:
        self.block_size = block_size
        self.free_blocks: deque[int] = deque(range(num_blocks))  # taken from the left, given back on the right
        self.ref_count = [0] * num_blocks  # for each block, how many tables it stands in
        self.block_tables: dict[str, list[int]] = {}  # by the name of the sequence, in the order of its tokens
        self.num_tokens: dict[str, int] = {}

    def allocate(self, name: str, num_tokens: int) -> None:
        """Begin a sequence of `num_tokens` tokens, 1 or more, with a table of its own.

        - Take as many blocks as the tokens need and not one more, from the left of `free_blocks`. Each of them is now
          in one table: say so in `ref_count`. Enter the sequence in `block_tables` and `num_tokens`.
        - Too few free blocks: raise OutOfBlocks. All or nothing: then no block is taken and no name entered.
        """
        raise NotImplementedError("BlockManager.allocate")

    def append(self, name: str) -> tuple[int, int] | None:
        """Make room for one more token of a sequence. Returns a copy that has to be made first, or None.

        - The last block has a slot left, and no other table has the block: count the token, and that is all.
        - The last block is full: take a free one.
        - The last block has a slot left, but other tables have it too: they must not see what is written now. Take a
          free block, put it where the shared one stood, and give up your reference to that one. Return (shared block,
          new block), so that the caller copies the contents. This is copy-on-write.
        - A block is needed and none is free: raise OutOfBlocks and change nothing, `num_tokens` included.
        """
        raise NotImplementedError("BlockManager.append")

    def fork(self, parent: str, child: str) -> None:
        """Begin the sequence `child` as a copy of `parent`, without taking a block: all of them are shared.

        As beam search and parallel samples need it. Later changes of one table must not change the other.
        """
        raise NotImplementedError("BlockManager.fork")

    def free(self, name: str) -> None:
        """End a sequence: forget its name, and give up its reference to each of its blocks.

        A block that stands in no table any more goes to the right end of `free_blocks`; the last block of the table
        first, its first block last. So beginnings of texts, which may be wanted again, are overwritten last. (There are
        no hashes here; vLLM's order, where blocks without one go first, is in 2.3.)
        """
        raise NotImplementedError("BlockManager.free")

    def slot(self, name: str, position: int) -> int:
        """The number of the slot of a token: block b has the slots b * block_size to (b + 1) * block_size - 1.

        `position` counts from 0. Raise IndexError if the sequence has no token there.
        """
        raise NotImplementedError("BlockManager.slot")


# ---------------------------------------------------------------------- 2. the blocks of a mix
#
# What vLLM takes from its pool for requests of known lengths. Two facts decide the edges:
#
#   The last token of an answer gets no slot. A key and a value are computed when a token is fed back for the next one,
#   and the last one never is.
#   The last token of a prompt is always computed, because its output is the first token of the answer.


def blocks_alone(prompt_tokens: int, output_tokens: int, block_size: int) -> int:
    """Blocks that one request holds just before it ends, when nobody shares with it; both lengths are 1 or more."""
    raise NotImplementedError("blocks_alone")


def blocks_together(prompts: Sequence[Sequence[int]], output_tokens: Sequence[int], block_size: int) -> int:
    """Blocks that are in use when all these requests are just before their ends, with prefix caching.

    Prompts are token ids. The requests come in this order, and each finds the blocks of all before it still there. All
    answers differ, and no prompt begins with another's prompt and answer.

    - A block can be found only if it is full of prompt tokens. It is the same block if its tokens *and all tokens
      before them* are the same.
    - A request looks from its first block on and stops at the first that is not there, and before the block that
      would include the last token of its prompt: from there on it takes blocks of its own.
    """
    raise NotImplementedError("blocks_together")


# ---------------------------------------------------------------------- 3. what is wasted


@dataclass(frozen=True)
class Request:
    """How long a request is, in tokens."""

    input_tokens: int
    output_tokens: int


def wasted_in_pieces(requests: Sequence[Request], max_model_len: int) -> float:
    """The share of reserved slots that is empty when all requests are just before their ends, each in one piece.

    Every request has reserved `max_model_len` slots. A share is between 0 and 1.
    """
    raise NotImplementedError("wasted_in_pieces")


def wasted_in_blocks(requests: Sequence[Request], block_size: int) -> float:
    """The same share where each request has just the blocks it needs, and none of them is shared."""
    raise NotImplementedError("wasted_in_blocks")


def fitting(
    requests: Sequence[Request], kv_bytes: int, token_bytes: int, max_model_len: int, block_size: int
) -> tuple[int, int]:
    """How many of the requests fit into `kv_bytes` of KV cache just before their ends: (in pieces, in blocks).

    They are taken in this order, until the first that does not fit. `token_bytes` is what one token takes. The memory
    is cut into whole pieces of `max_model_len` tokens, or into whole blocks, of which vLLM keeps one for itself.
    """
    raise NotImplementedError("fitting")
