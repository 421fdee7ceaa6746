"""1. The block table"""

import random
from collections import deque
from collections.abc import Callable

from common.check import expect

Tables = dict[str, tuple[list[int], int]]  # name: (block table, tokens)


def manager_with(exercises, tables: Tables, num_blocks: int = 10, block_size: int = 4):
    """A manager in the middle of its work, made without calling what is to be checked."""
    manager = exercises.BlockManager(num_blocks, block_size)
    used = {block for table, _ in tables.values() for block in table}
    manager.free_blocks = deque(block for block in range(num_blocks) if block not in used)
    for name, (table, tokens) in tables.items():
        manager.block_tables[name], manager.num_tokens[name] = list(table), tokens
        for block in table:
            manager.ref_count[block] += 1
    return manager


def state(manager) -> dict[str, object]:
    """Everything that a manager knows, as one can compare it."""
    return {
        "free_blocks": list(manager.free_blocks),
        "ref_count": list(manager.ref_count),
        "block_tables": {name: list(table) for name, table in manager.block_tables.items()},
        "num_tokens": dict(manager.num_tokens),
    }


def refuses(exercises, manager, what: str, call: Callable[[], object]) -> None:
    """Check that a call raises OutOfBlocks and leaves everything as it was."""
    before = state(manager)
    try:
        call()
    except exercises.OutOfBlocks:
        expect(f"After {what} has raised OutOfBlocks, the manager's state", state(manager), before, "all or nothing")
    else:
        raise AssertionError(f"{what} should raise OutOfBlocks. Yours goes on, with {len(manager.free_blocks)} free.")


def test_allocate_takes_what_the_tokens_need(exercises):
    for tokens, blocks in ((1, 1), (4, 1), (5, 2), (8, 2), (9, 3)):
        manager = manager_with(exercises, {"other": ([0], 3)})
        manager.allocate("new", tokens)
        call = f"With blocks of 4 and the blocks 1 to 9 free, after allocate('new', {tokens}) "
        wanted = list(range(1, 1 + blocks))
        mistakes = {
            "a block is taken that no token needs yet": list(range(1, 2 + tokens // 4)),
            "the tokens of the last, partly filled block have no place": list(range(1, 1 + tokens // 4)),
            "blocks are taken from the right end of free_blocks": list(range(9, 9 - blocks, -1)),
        }
        expect(call + "block_tables['new']", manager.block_tables.get("new"), wanted, mistakes=mistakes)
        expect(call + "num_tokens['new']", manager.num_tokens.get("new"), tokens)
        expect(call + "ref_count", manager.ref_count, [1] * (1 + blocks) + [0] * (9 - blocks), "one table for each")
        expect(call + "free_blocks", list(manager.free_blocks), list(range(1 + blocks, 10)))


def test_allocate_takes_all_or_nothing(exercises):
    manager = manager_with(exercises, {"other": (list(range(8)), 32)})
    refuses(exercises, manager, "allocate('new', 9), which needs 3 blocks where 2 are free,",
            lambda: manager.allocate("new", 9))  # fmt: skip
    manager.allocate("new", 8)
    expect("allocate('new', 8), which needs just the 2 free blocks: block_tables['new']",
           manager.block_tables["new"], [8, 9])  # fmt: skip


def test_append_in_and_at_the_end_of_a_block(exercises):
    manager = manager_with(exercises, {"a": ([5, 2], 7), "b": ([7], 4)})
    got = manager.append("a")
    expect("append to 7 tokens in blocks of 4", got, None, "there is nothing to copy") if got is not None else None
    expect("append to 7 tokens in blocks of 4: block_tables['a']", manager.block_tables["a"], [5, 2],
           "the eighth token fits block 2", {"a block is taken for every token": [5, 2, 0]})  # fmt: skip
    expect("and num_tokens['a']", manager.num_tokens["a"], 8)
    got = manager.append("a")
    expect("append to 8 tokens in blocks of 4: block_tables['a']", manager.block_tables["a"], [5, 2, 0],
           "block 2 is full, and 0 is the first free block")  # fmt: skip
    assert got is None, f"append to 8 tokens in blocks of 4 should return None: a new block needs no copy. Got {got}."
    expect("and ref_count of block 0", manager.ref_count[0], 1)
    expect("and free_blocks", list(manager.free_blocks), [1, 3, 4, 6, 8, 9])
    expect("and the other sequence's table", manager.block_tables["b"], [7])


def test_append_copies_a_shared_block_before_it_is_written(exercises):
    manager = manager_with(exercises, {"a": ([5, 2], 6), "b": ([5, 2], 6), "c": ([5, 2], 6)})
    mistakes = {"the sequence writes into a block that others read": None, "the pair is the wrong way round": (0, 2)}
    got = manager.append("a")
    call = "append('a') to 6 tokens in the blocks 5 and 2, which b and c have too: "
    if got != (2, 0):
        named = [mistake for mistake, answer in mistakes.items() if got == answer]
        raise AssertionError(
            f"{call}should return (2, 0), from the shared to the new block. Yours returns {got}."
            + (f"\nIt looks as if {named[0]}." if named else "")
        )
    expect(call + "block_tables['a']", manager.block_tables["a"], [5, 0], "only the last block is written to")
    expect(call + "block_tables['b']", manager.block_tables["b"], [5, 2], "b keeps what it had")
    expect(call + "ref_count of the blocks 5, 2, 0", [manager.ref_count[block] for block in (5, 2, 0)], [3, 2, 1],
           "a has given up block 2", {"the reference to the shared block is not given up": [3, 3, 1]})  # fmt: skip
    expect("then append('b')", manager.append("b") or (), (2, 1), "c still has block 2")
    last = manager.append("c")
    assert last is None, f"then append('c') should return None: it is the only one left with block 2. Got {last}."
    expect("then block_tables['c']", manager.block_tables["c"], [5, 2])


def test_append_does_not_copy_a_full_block(exercises):
    manager = manager_with(exercises, {"a": ([5, 2], 8), "b": ([5, 2], 8)})
    got = manager.append("a")
    assert got is None, f"append to 8 tokens in shared blocks of 4 writes to a new block: no copy. Yours says {got}."
    expect("append('a') to 8 tokens in shared blocks of 4: block_tables['a']", manager.block_tables["a"], [5, 2, 0])
    expect("and ref_count of the blocks 5, 2, 0", [manager.ref_count[block] for block in (5, 2, 0)], [2, 2, 1])


def test_append_with_no_free_block(exercises):
    full = {"a": ([0, 1], 8), "b": ([2, 3], 7), "c": ([4], 2), "d": ([4], 2)}
    manager = manager_with(exercises, full, num_blocks=5)
    refuses(exercises, manager, "append('a'), whose last block is full,", lambda: manager.append("a"))
    refuses(exercises, manager, "append('c'), which has to copy a shared block,", lambda: manager.append("c"))
    manager.append("b")
    expect(
        "append('b'), whose last block has a slot: num_tokens['b']", manager.num_tokens["b"], 8, "no block is needed"
    )


def test_fork_shares_every_block(exercises):
    manager = manager_with(exercises, {"a": ([5, 2, 8], 9)})
    manager.fork("a", "b")
    expect("After fork('a', 'b') block_tables['b']", manager.block_tables.get("b"), [5, 2, 8])
    expect("After fork('a', 'b') num_tokens['b']", manager.num_tokens.get("b"), 9)
    expect("After fork('a', 'b') ref_count of 5, 2, 8", [manager.ref_count[block] for block in (5, 2, 8)], [2, 2, 2])
    expect("After fork('a', 'b') the number of free blocks", len(manager.free_blocks), 7, "a fork takes none")
    assert manager.block_tables["b"] is not manager.block_tables["a"], (
        "After fork('a', 'b') both names lead to one list: a block that b takes later would be in a's table too."
    )


def test_free_gives_back_what_nobody_else_has(exercises):
    manager = manager_with(exercises, {"a": ([5, 2, 8], 9), "b": ([5, 2, 7], 11)})
    manager.free("a")
    expect("free('a') with the blocks 5, 2, 8, of which b has 5 and 2: free_blocks", list(manager.free_blocks),
           [0, 1, 3, 4, 6, 9, 8], "only 8 is free now, at the right end",
           {"blocks are given back that b still reads": [0, 1, 3, 4, 6, 9, 8, 2, 5]})  # fmt: skip
    expect("and ref_count of 5, 2, 8, 7", [manager.ref_count[block] for block in (5, 2, 8, 7)], [1, 1, 0, 1])
    assert "a" not in manager.block_tables and "a" not in manager.num_tokens, "free('a') should forget the name a."
    manager.free("b")
    expect("then free('b') with the blocks 5, 2, 7: free_blocks", list(manager.free_blocks),
           [0, 1, 3, 4, 6, 9, 8, 7, 2, 5], "the last block of the table first",
           {"the first block of the table goes first": [0, 1, 3, 4, 6, 9, 8, 5, 2, 7]})  # fmt: skip


def test_slots(exercises):
    manager = manager_with(exercises, {"a": ([5, 2, 8], 9)})
    for position, slot in ((0, 20), (3, 23), (4, 8), (7, 11), (8, 32)):
        expect(f"slot('a', {position}) with blocks of 4 and the table [5, 2, 8]", manager.slot("a", position), slot,
               f"block {[5, 2, 8][position // 4]}, place {position % 4}",
               {"the table is not used": position, "the place in the block is left out": slot - position % 4},
               )  # fmt: skip
    for position in (9, 11, 12, -1):
        try:
            got = manager.slot("a", position)
        except IndexError:
            continue
        raise AssertionError(f"slot('a', {position}) of 9 tokens should raise IndexError. Yours returns {got}.")


def test_a_thousand_random_calls(exercises):
    """Whatever is called, no block is lost, none is in two hands, and what a sequence has written it reads again."""
    draw = random.Random(0)
    for block_size in (1, 3, 4):
        manager = exercises.BlockManager(24, block_size)
        written: dict[int, str] = {}  # by slot: the text that stands there
        texts: dict[str, list[str]] = {}

        def write(name: str, first: int, manager=manager, written=written, texts=texts) -> None:
            for position in range(first, len(texts[name])):
                written[manager.slot(name, position)] = texts[name][position]

        for number in range(350):
            name = draw.choice(list(texts)) if texts else ""
            action = draw.choice(["allocate", "append", "append", "append", "fork", "free"]) if texts else "allocate"
            new = f"s{number}"
            try:
                if action == "allocate":
                    tokens = draw.randint(1, 3 * block_size)
                    manager.allocate(new, tokens)
                    texts[new] = [f"{new}.{place}" for place in range(tokens)]
                    write(new, 0)
                elif action == "append":
                    copy = manager.append(name)
                    if copy:
                        for place in range(block_size):
                            slot = copy[0] * block_size + place
                            written[copy[1] * block_size + place] = written.get(slot, "")
                    texts[name].append(f"{name}.{len(texts[name])}")
                    write(name, len(texts[name]) - 1)
                elif action == "fork":
                    manager.fork(name, new)
                    texts[new] = list(texts[name])
                else:
                    manager.free(name)
                    del texts[name]
            except exercises.OutOfBlocks:
                victim = draw.choice(list(texts))
                manager.free(victim)
                del texts[victim]
            sound(manager, block_size, f"call {number + 1}, {action},")
            for name, text in texts.items():
                read = [written.get(manager.slot(name, position)) for position in range(len(text))]
                assert read == text, (
                    f"After call {number + 1}, {action}, sequence {name} reads {read} where it has written {text}: "
                    "another sequence has written into its blocks, or its table is wrong."
                )


def sound(manager, block_size: int, when: str) -> None:
    """Check that counts, tables and free blocks fit each other."""
    held = [block for table in manager.block_tables.values() for block in table]
    counts = [held.count(block) for block in range(len(manager.ref_count))]
    assert list(manager.ref_count) == counts, (
        f"After {when} ref_count is {manager.ref_count}, and the tables have the blocks {counts} times."
    )
    free = list(manager.free_blocks)
    assert len(set(free)) == len(free), f"After {when} a block is free twice: {sorted(free)}."
    both = sorted(set(free) & set(held))
    assert not both, f"After {when} the blocks {both} are free and in a table at once."
    lost = sorted(set(range(len(counts))) - set(free) - set(held))
    assert not lost, f"After {when} the blocks {lost} are neither free nor in a table: they are lost."
    for name, table in manager.block_tables.items():
        wanted = -(-manager.num_tokens[name] // block_size)
        assert len(table) == wanted, f"After {when} {name} has {len(table)} blocks, and its tokens need {wanted}."
