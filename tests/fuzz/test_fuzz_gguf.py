"""Whatever a GGUF file says: it becomes a folder, or is refused by one message."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzzing import amounts, survives
from gguf_files import make_llama, make_tokenizer, write_gguf
from hypothesis import strategies as st

from prism_ae.models.gguf import convert_gguf


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    write_gguf(path, make_llama(), make_tokenizer())
    return path.read_bytes()


@amounts
def test_a_gguf_file(whole: bytes, tmp_path: Path, times: int) -> None:
    """Bytes of the head, where every length and kind is, replaced, taken away or put in between; or it is cut off."""
    head = whole.index(b"blk.1.ffn_up.weight") + 100

    def enter(change: tuple[int, int, bytes]) -> None:
        at, gone, put = change
        path = tmp_path / "x.gguf"
        path.write_bytes(whole[:at] + put + whole[at + gone :])
        convert_gguf(path, tmp_path)

    places = st.integers(0, head) | st.integers(0, 40)
    spoilt = st.tuples(places, st.sampled_from([0, 1, 4, 8]), st.binary(max_size=8))
    cut = st.tuples(st.integers(0, len(whole)), st.just(len(whole)), st.just(b""))
    survives(60 * times, spoilt | cut, enter)
