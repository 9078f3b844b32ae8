"""What engines keep is loaded only as it was compared, and only from this user's own folder."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from synthetic import tiny_extractor

from effovpr_ros.core.errors import EngineError
from effovpr_ros.engines import cache
from effovpr_ros.engines.agreement import Agreement


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "effovpr_ros"


def test_matrices_replaced_in_a_cached_graph_are_noticed(tmp_path: Path, own_cache: Path):
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    tiny_extractor(tmp_path, engine="onnxruntime")
    (graph,) = own_cache.rglob("network.onnx")
    model = onnx.load(str(graph))
    replaced = 0
    for weight in model.graph.initializer:
        if weight.raw_data and len(weight.dims) == 2 and weight.data_type == onnx.TensorProto.FLOAT:
            weight.raw_data = b"\x00\x00\x80\x3e" * (len(weight.raw_data) // 4)
            replaced += 1
    assert replaced > 3
    onnx.save(model, str(graph))
    with pytest.raises(EngineError, match="onnxruntime is refused for every map"):
        tiny_extractor(tmp_path, engine="onnxruntime")


def test_the_cache_is_this_users_alone(own_cache: Path, monkeypatch: pytest.MonkeyPatch):
    cache.cache_root()
    assert stat.S_IMODE(own_cache.stat().st_mode) == 0o700
    own_cache.chmod(0o777)
    cache.cache_root()
    assert stat.S_IMODE(own_cache.stat().st_mode) == 0o700
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(EngineError, match="belongs to another user"):
        cache.cache_root()


def test_compiled_code_is_kept_there_too(own_cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    cache.keep_compiled_code()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(own_cache / "inductor")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/mine")
    cache.keep_compiled_code()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "/mine"


@pytest.mark.parametrize(
    "content", [b"", b"[" * 3000, b'{"agreement": {"mean": "1"}}', b"\xff\xfe", b"[]", b" " * 10**6 + b"{}"]
)
def test_damaged_records_are_measured_again(tmp_path: Path, content: bytes):
    (tmp_path / "record.json").write_bytes(content)
    values = cache.read_record(tmp_path / "record.json")
    assert values is None or Agreement.from_record(values.get("agreement")) is None
