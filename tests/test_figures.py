"""Figures: small, drawn from records, and out of date as soon as the record or the drawing differs."""

import copy

import pytest
from PIL import Image

from common.figures import COLOURS, Figure

LINES = Figure(
    name="by_users", experiment="e", x="users", y="output_tok_s", by="server", title="Rates", log_x=True, log_y=True
)
BARS = Figure(name="cost", experiment="e", x="engine", y="usd_per_million_tokens", title="Cost", kind="bar")
STACKED = Figure(
    name="startup", experiment="e", x="configuration", y=("import_s", "load_s", "compile_s"), title="Start", kind="bar"
)


def record_of(rows):
    return {
        "rows": rows,
        "hardware": {"name": "NVIDIA H100 80GB HBM3"},
        "model": {"weights": "random"},
        "date": "2026-11-21 05:00 UTC",
    }


RECORDS = {
    "by_users": record_of(
        [
            {"server": f"server {s}", "users": 2**u, "output_tok_s": 10.0 * (s + 1) * 2**u if u != s else None}
            for s in range(len(COLOURS))
            for u in range(10)
        ]
    ),
    "cost": record_of(
        [{"engine": name, "usd_per_million_tokens": cost} for name, cost in (("a", 0.12), ("b", 1234.0), ("c", None))]
    ),
    "startup": record_of(
        [
            {"configuration": f"start {i}", "import_s": 6.0 + i, "load_s": 2.0, "compile_s": 20.0 if i else None}
            for i in range(8)
        ]
    ),
}


@pytest.mark.parametrize("figure", [LINES, BARS, STACKED], ids=lambda figure: figure.name)
def test_a_drawn_figure_is_current_small_and_the_same_each_time(figure, tmp_path):
    record = RECORDS[figure.name]
    assert not figure.is_current(tmp_path, "h100", record)
    figure.draw(tmp_path, "h100", record)
    file = tmp_path / "figures" / f"{figure.name}-h100.png"
    assert figure.is_current(tmp_path, "h100", record)
    assert file.stat().st_size < 80_000
    before = file.read_bytes()
    with Image.open(file) as picture:
        assert picture.width > 600
        assert len(picture.convert("RGB").getcolors(1 << 20)) > 5, "an empty picture"
    figure.draw(tmp_path, "h100", record)
    assert file.read_bytes() == before


@pytest.mark.parametrize("part", ["rows", "hardware", "date", "weights", "title"])
def test_a_figure_is_outdated_when_what_it_shows_changes(part, tmp_path):
    record = RECORDS["cost"]
    BARS.draw(tmp_path, "h100", record)
    changed, figure = copy.deepcopy(record), BARS
    if part == "rows":
        changed["rows"][0]["usd_per_million_tokens"] = 0.13
    elif part == "hardware":
        changed["hardware"]["name"] = "NVIDIA H200"
    elif part == "date":
        changed["date"] = "2026-11-22 05:00 UTC"
    elif part == "weights":
        changed["model"]["weights"] = "0123456789abcdef"
    else:
        figure = Figure(**(vars(BARS) | {"title": "Price"}))
    assert BARS.is_current(tmp_path, "h100", record)
    assert not figure.is_current(tmp_path, "h100", changed)


@pytest.mark.parametrize("keep", [0, 100, 5000])
def test_a_damaged_picture_is_not_current(keep, tmp_path):
    LINES.draw(tmp_path, "h100", RECORDS["by_users"])
    file = LINES.file(tmp_path, "h100")
    file.write_bytes(file.read_bytes()[:keep])
    assert not LINES.is_current(tmp_path, "h100", RECORDS["by_users"])


def test_a_picture_of_somebody_else_is_not_current(tmp_path):
    (tmp_path / "figures").mkdir()
    Image.new("RGB", (10, 10)).save(BARS.file(tmp_path, "h100"))
    assert not BARS.is_current(tmp_path, "h100", RECORDS["cost"])


def test_no_line_is_left_out_without_a_word(tmp_path):
    rows = [{"server": f"server {s}", "users": 1, "output_tok_s": 1.0} for s in range(len(COLOURS) + 1)]
    with pytest.raises(ValueError, match="7 lines"):
        LINES.draw(tmp_path, "h100", record_of(rows))
