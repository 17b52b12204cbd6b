"""Laws of listing a folder: everything below it, in the order of paths, and nothing hidden."""

from __future__ import annotations

from pathlib import Path

from onnxprune.data.listing import files


def test_files_below_a_folder_in_order_without_hidden_ones(tmp_path: Path) -> None:
    for name in ("b/2.PNG", "b/10.png", "a/x.jpg", "z.png", ".hidden.png", ".cache/y.png", "__MACOSX/b/2.png", "n.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True, parents=True)
        path.touch()
    found = [path.relative_to(tmp_path).as_posix() for path in files(tmp_path, (".png", ".jpg"))]
    assert found == ["a/x.jpg", "b/10.png", "b/2.PNG", "z.png"]


def test_links_to_folders_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    inner = tmp_path / "data" / "inner"
    inner.mkdir(parents=True)
    (inner / "x.npy").touch()
    (inner / "up").symlink_to(tmp_path / "data")
    (tmp_path / "link").symlink_to(inner)
    assert files(tmp_path / "link", (".npy",)) and len(files(tmp_path / "data", (".npy",))) == 1
