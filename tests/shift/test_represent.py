"""Texts and images as columns: no download by default, encoders of one's own by the plugins, and what they let a window show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from loudly import plugins, shift
from loudly.errors import DataError, ModelError
from loudly.shift.represent.image import resized, small_image
from loudly.shift.represent.text import hashed_text

WORDS = {
    "work": ["meeting", "report", "schedule", "budget", "review", "project", "deadline", "minutes"],
    "offers": ["winner", "free", "click", "viagra", "prize", "credit", "urgent", "guarantee"],
}


def letters(rng: Any, n: int, offers: float) -> list[str]:
    """Texts of 30 words each, a share of them offers."""
    return [" ".join(rng.choice(WORDS["offers" if rng.random() < offers else "work"], 30)) for _ in range(n)]


def test_the_kind_has_its_parts() -> None:
    assert plugins.names("representation") == ("text", "image", "onnx-text", "onnx-image")
    assert plugins.resolve("representation", "text") is hashed_text
    assert plugins.resolve("representation", "image") is small_image


def test_hashed_texts_are_the_same_everywhere_and_keep_who_is_near_whom() -> None:
    rng = np.random.default_rng(0)
    work, offers = letters(rng, 20, 0.0), letters(rng, 20, 1.0)
    made = hashed_text(128)([*work, *offers])
    assert np.array_equal(made, hashed_text(128)([*work, *offers]))
    assert not np.array_equal(made, hashed_text(128, seed=1)([*work, *offers]))
    near = made @ made.T
    assert near[:20, :20].mean() > near[:20, 20:].mean() + 0.2
    assert np.linalg.norm(made, axis=1) == pytest.approx(np.ones(40), abs=0.5)
    assert hashed_text(8)(["", "x"]).shape == (2, 8)
    assert hashed_text(8)([]).shape == (0, 8)
    with pytest.raises(DataError, match="no texts"):
        hashed_text(8)([None])  # type: ignore[list-item]
    with pytest.raises(DataError, match="n-grams"):
        hashed_text(8, shortest=4, longest=3)


def test_a_column_of_text_is_seen_with_its_representation_and_named_without() -> None:
    rng = np.random.default_rng(1)

    def table(n: int, offers: float) -> pl.DataFrame:
        return pl.DataFrame({"body": letters(rng, n, offers), "length": rng.normal(size=n)})

    before = table(600, 0.2)
    blind = shift.fit(before)
    assert blind.encoding.left_out == ("body",)
    missed = blind.check(table(200, 0.8))
    assert "LOUD" in missed.reason
    assert "body: free text or a key, left out" in missed.reason
    assert "loudly.shift.represent.text" in str(missed.evidence[0].detail["notes"])
    seeing = shift.fit(before, embed={"body": hashed_text(32)})
    assert seeing.check(table(200, 0.8)).failed
    assert seeing.check(table(200, 0.8)).evidence[1].about.removeprefix("spread of ").startswith("body~")
    quiet = [(seeing.check(table(100, 0.2)).evidence[0].p_value or 0.0) <= 0.05 for _ in range(30)]
    assert np.mean(quiet) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 30)
    gone = seeing.check(table(100, 0.2).with_columns(body=pl.lit(None, pl.String)))
    assert (gone.evidence[0].p_value or 0.0) <= 0.05, "texts that are missing are missing cells"


def test_categories_are_no_text_and_keys_are_no_categories() -> None:
    n = 2000
    held = pl.DataFrame(
        {"carrier": ["UA", "DL"] * (n // 2), "user": [f"u{i}" for i in range(n)], "place": [f"p{i % 1200}" for i in range(n)]}
    )
    fitted = shift.fit(held.with_columns(place=pl.concat_str(pl.lit("p"), (pl.int_range(n) % 900).cast(pl.String))))
    assert fitted.encoding.names == ("carrier", "place")
    assert fitted.encoding.left_out == ("user",)
    many = held.with_columns(place=pl.concat_str(pl.lit("p"), (pl.int_range(n) % 1200).cast(pl.String)))
    assert shift.fit(many).encoding.left_out == ("user", "place")
    wide = pl.concat([many] * 3)
    assert any("1,200 categories: the 30 most common" in note for note in shift.fit(wide).encoding.notes)
    with pytest.raises(DataError, match="no column that can be compared"):
        shift.fit(held.select("user"))


def test_mixed_types_are_told_in_the_verdict() -> None:
    fitted = shift.fit({"x": [1.0, 2.0] * 50, "c": [1, "a"] * 50})
    found = fitted.check({"x": [1.0, 2.0] * 20, "c": [1, "a"] * 20})
    assert "LOUD: reference: c: mixed types: taken as text; window: c: mixed types: taken as text" in found.reason
    assert len(found.evidence[0].detail["notes"]) == 2
    assert "notes" not in shift.fit({"x": [1.0, 2.0] * 50}).check({"x": [1.0, 2.0] * 20}).evidence[0].detail


def test_a_representation_that_does_not_fit_is_named() -> None:
    table = pl.DataFrame({"body": [f"text {i}" for i in range(60)]})
    with pytest.raises(DataError, match="did you mean 'body'"):
        shift.fit(table, embed={"bodi": hashed_text(8)})
    with pytest.raises(DataError, match="one row for each value"):
        shift.fit(table, embed={"body": lambda texts: np.zeros((1, 3))})


def pictures(rng: Any, n: int, bright: float = 0.0) -> Any:
    """Noise with a bar whose place varies; `bright` adds light to the upper half."""
    made = rng.uniform(0, 0.2, size=(n, 20, 24))
    for image, at in zip(made, rng.integers(0, 20, n), strict=True):
        image[at] += 0.8
    made[:, :10] += bright
    return made


def test_images_are_seen_in_a_table_and_in_any_shape() -> None:
    rng = np.random.default_rng(2)
    embed = small_image()
    flat = rng.random((3, 784))
    assert embed(flat) == pytest.approx(embed(flat.reshape(3, 28, 28)))
    assert embed(np.repeat(flat.reshape(3, 28, 28)[..., None], 3, axis=3)) == pytest.approx(embed(flat))
    assert embed(flat[:0].reshape(0, 28, 28)).shape == (0, 48)
    with pytest.raises(DataError, match="no images"):
        embed(np.zeros((3, 10)))

    def table(n: int, bright: float = 0.0) -> pl.DataFrame:
        return pl.DataFrame({"picture": pictures(rng, n, bright)})

    assert shift.fit(table(100).with_columns(x=1.0)).encoding.left_out == ("picture",)
    fitted = shift.fit(table(400), embed={"picture": embed})
    assert (fitted.check(table(50, 0.1)).evidence[0].p_value or 1.0) <= 0.05
    assert shift.detect(embed(pictures(rng, 400)), embed(pictures(rng, 100, 0.15))).failed


def test_resizing_keeps_the_light() -> None:
    rng = np.random.default_rng(3)
    image = rng.random((2, 13, 7))
    for side in (1, 4, 20):
        assert resized(image, side).mean(axis=(1, 2)) == pytest.approx(image.mean(axis=(1, 2)))
    assert resized(image[:, :7], 7) == pytest.approx(image[:, :7])


# -- encoders of one's own ---------------------------------------------------------------------------------------------------


def graph(path: Path, nodes: Any, inputs: Any, weights: Any, out: Any) -> Path:
    onnx = pytest.importorskip("onnx", reason="LOUD: onnx is not installed; there is no encoder to test with")
    kinds = {"int64": onnx.TensorProto.INT64, "float": onnx.TensorProto.FLOAT}
    made = onnx.helper.make_graph(
        [onnx.helper.make_node(*node[:3], **node[3]) for node in nodes],
        "encoder",
        [onnx.helper.make_tensor_value_info(name, kinds[kind], shape) for name, kind, shape in inputs],
        [onnx.helper.make_tensor_value_info(out, onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


def test_an_onnx_encoder_of_images_is_what_it_computes(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="LOUD: onnxruntime is not installed; no encoder is tested")
    weights = {"w": np.random.default_rng(4).normal(size=(12, 5)).astype(np.float32)}
    nodes = [("Flatten", ["x"], ["f"], {"axis": 1}), ("MatMul", ["f", "w"], ["y"], {})]
    path = graph(tmp_path / "images.onnx", nodes, [("x", "float", [None, 3, 2, 2])], weights, "y")
    embed = plugins.resolve("representation", "onnx-image")(path)
    rows = np.random.default_rng(5).normal(size=(70, 3, 2, 2))
    assert embed(rows) == pytest.approx(rows.reshape(70, 12) @ weights["w"], abs=1e-4)
    with pytest.raises(DataError, match="No images"):
        embed(rows[:0])
    (tmp_path / "no.onnx").write_bytes(b"nonsense")
    with pytest.raises(ModelError, match="no ONNX graph"):
        plugins.resolve("representation", "onnx-image")(tmp_path / "no.onnx")


def test_an_onnx_encoder_of_texts_is_the_mean_over_its_tokens(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers", reason="LOUD: pip install 'loudly[text]': no encoder of texts is tested")
    words = {word: i for i, word in enumerate(["[PAD]", "[UNK]", *WORDS["work"], *WORDS["offers"]])}
    tokens = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, "[UNK]"))
    tokens.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokens.save(str(tmp_path / "tokenizer.json"))
    table = np.random.default_rng(6).normal(size=(len(words), 4)).astype(np.float32)
    given = [("input_ids", "int64", [None, None]), ("attention_mask", "int64", [None, None])]
    nodes = [("Gather", ["table", "input_ids"], ["y"], {}), ("Shape", ["attention_mask"], ["unused"], {})]
    path = graph(tmp_path / "texts.onnx", nodes, given, {"table": table}, "y")
    embed = plugins.resolve("representation", "onnx-text")(path, tmp_path / "tokenizer.json")
    texts = ["report", "free prize click", *letters(np.random.default_rng(7), 60, 0.5)]
    made = embed(texts)
    for text, row in zip(texts, made, strict=True):
        mean = table[[words[w] for w in text.split()]].mean(axis=0)
        assert row == pytest.approx(mean / np.linalg.norm(mean), abs=1e-5), "padding counts for nothing"
    rng = np.random.default_rng(8)
    assert shift.detect(embed(letters(rng, 300, 0.2)), embed(letters(rng, 100, 0.9))).failed
    with pytest.raises(DataError, match="No texts"):
        embed([])
    with pytest.raises(ModelError, match="no tokenizer"):
        plugins.resolve("representation", "onnx-text")(path, tmp_path / "nothing.json")
    lacking = graph(tmp_path / "other.onnx", nodes, [*given, ("pixels", "float", [None])], {"table": table}, "y")
    with pytest.raises(ModelError, match="wants inputs"):
        plugins.resolve("representation", "onnx-text")(lacking, tmp_path / "tokenizer.json")(["free"])
