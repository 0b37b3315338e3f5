"""``ambiseg view``: the folder of the page, and what is refused."""

from __future__ import annotations

import socket

import pytest


def test_a_page_of_a_data_set(cli, fires, tmp_path):
    found = cli("view", fires, "--split", "val", "--out", tmp_path / "site")
    assert found.status == 0 and found.out.strip() == str(tmp_path / "site" / "index.html")
    assert "fires, val" in (tmp_path / "site" / "list.js").read_text()
    assert "exists already" in cli("view", fires, "--out", tmp_path / "site").error
    assert cli("view", fires, "--out", tmp_path / "site", "--overwrite").status == 0
    assert "fires, test" in (tmp_path / "site" / "list.js").read_text()


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["nowhere"], "there is nothing at nowhere"),
        (["{fires}", "--split", "tset"], "tset"),
        (["{fires}", "--images", "."], "--images is of use with"),
        (["{fires}", "--port", "70000"], "--port is 1 to 65535"),
        (["{fires}", "--overwrite"], "--overwrite is of use with --out"),
        (["{fires}", "--out", "{fires}", "--overwrite"], "fires"),
        (["{tmp}"], "holds no"),
        (["{tmp}", "--data", "{fires}"], "holds no folder of masks"),
    ],
)
def test_mistakes_are_one_sentence(cli, fires, tmp_path, words, part):
    assert part in cli("view", *(word.format(fires=fires, tmp=tmp_path) for word in words)).error


def test_a_port_in_use_is_one_sentence(cli, fires):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"port {port} cannot be used" in cli("view", fires, "--port", port).error
