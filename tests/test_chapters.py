"""Which chapters there are, and what their files may import."""

import pytest

from common.chapters import chapters, load


def test_chapters_come_in_the_order_of_their_numbers(tmp_path):
    for name in ("10.production", "2.vllm_arch", "0.intro"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "demo.py").write_text("")
    (tmp_path / "3.unfinished").mkdir()
    assert [folder.name for folder in chapters(tmp_path)] == ["0.intro", "2.vllm_arch", "10.production"]


def test_a_chapters_file_may_import_its_neighbours(tmp_path, monkeypatch):
    (tmp_path / "1.one").mkdir()
    (tmp_path / "1.one/neighbour_of_one.py").write_text("VALUE = 7\n")
    (tmp_path / "1.one/demo.py").write_text("from neighbour_of_one import VALUE\n")
    assert load(tmp_path / "1.one/demo.py").VALUE == 7
    (tmp_path / "1.one/broken.py").write_text("1 / 0\n")
    with pytest.raises(ZeroDivisionError):
        load(tmp_path / "1.one/broken.py")
    (tmp_path / "2.two").mkdir()
    (tmp_path / "2.two/demo.py").write_text("import another_neighbour\n")
    (tmp_path / "1.one/another_neighbour.py").write_text("")
    with pytest.raises(ModuleNotFoundError):  # the first chapter's folder is off the path again
        load(tmp_path / "2.two/demo.py")


def test_no_two_chapters_have_files_of_the_same_name():
    ours = {"demo", "exercises", "solutions"}
    names = [file.stem for folder in chapters() for file in folder.glob("*.py") if file.stem not in ours]
    assert len(names) == len(set(names))
