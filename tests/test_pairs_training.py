"""A data set of pairs goes through ComfyUI's own dataset and training nodes."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import folder_paths
import pytest
import torch
from comfy.patcher_extension import WrappersMP
from host_run import host_nodes
from pair_makers import NoiseMaker, captions
from tiny_instruct import AveragingVAE, tiny_instruct
from tiny_model import shared_clip

from headless import Pack
from p2p_pairs.__main__ import main
from p2p_pairs.folder import Folder
from p2p_pairs.host_sets import encoded, load_extra, pixels, save_training_set, stored_rows
from p2p_pairs.settings import Settings

pytestmark = pytest.mark.usefixtures("host")
# With a batch_size above 1 the host averages the predictions under all conditionings of a batch.
LORA = {
    "batch_size": 1, "steps": 3, "grad_accumulation_steps": 2, "learning_rate": 0.01, "rank": 2,
    "optimizer": "AdamW", "loss_function": "MSE", "seed": 0, "training_dtype": "fp32",
    "lora_dtype": "fp32", "quantized_backward": False, "algorithm": "LoRA",
    "gradient_checkpointing": False, "checkpoint_depth": 1, "offloading": False,
    "existing_lora": "[None]", "bucket_mode": False, "bypass_mode": False,
}  # fmt: skip


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data set of noise."""
    settings, wanted = Settings(block=3), captions(6)
    folder, maker = Folder(tmp_path / "data", settings, wanted, ["parquet"]), NoiseMaker(settings)
    for caption in wanted:
        folder.add(caption.key, maker.make(caption))
    return folder.path


def test_folders_of_pictures_are_loaded_with_their_texts(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_extra(Pack(), "dataset")
    monkeypatch.setattr(folder_paths, "input_directory", str(tmp_path / "input"))
    assert main(["folders", "--data", str(data), "--out", str(tmp_path / "input" / "pairs")]) == 0
    rows = list(stored_rows(data))
    load = host_nodes.NODE_CLASS_MAPPINGS["LoadImageTextDataSetFromFolder"].execute
    for name in ("original", "edited"):
        pictures, texts = load(f"pairs/{name}").args
        wanted = [pixels(row, f"{name}_image") for row in rows]
        assert len(pictures) == len(rows) > 5 and set(texts) == {"turn it into a dog"}
        assert all(any(torch.equal(one, other) for other in wanted) for one in pictures)


def test_a_lora_is_trained_from_it(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the host's Train LoRA on a model with eight input channels, from its own dataset files."""
    pack = Pack()
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "datasets", ([str(tmp_path)], set()))
    latents, conditionings = encoded(stored_rows(data, 4), pack, AveragingVAE(), shared_clip())
    save_training_set(pack, latents, conditionings, "mine", 3)
    load_extra(pack, "train")
    loaded = host_nodes.NODE_CLASS_MAPPINGS["LoadTrainingDataset"].execute("mine").args
    rows = list(stored_rows(data, 4))
    for row, latent, [[_, more]] in zip(rows, *loaded, strict=True):
        for name, there in (
            ("edited", latent["samples"]),
            ("original", more["concat_latent_image"]),
        ):
            assert torch.equal(there, AveragingVAE().encode(pixels(row, f"{name}_image")))

    model = tiny_instruct()
    # What the host's loaders leave there: how to load the model once more.
    model.cached_patcher_init = (lambda disable_dynamic: tiny_instruct(), ())
    seen: list[torch.Tensor] = []

    def look(executor: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        seen.append(x.detach().clone())
        return executor(x, *args, **kwargs)

    model.add_wrapper(WrappersMP.DIFFUSION_MODEL, look)
    first = model.model.diffusion_model.input_blocks[0][0].weight.detach().clone()
    train = host_nodes.NODE_CLASS_MAPPINGS["TrainLoraNode"]
    known = inspect.signature(train.execute).parameters  # older hosts know fewer
    inputs: dict[str, Any] = {name: [value] for name, value in LORA.items() if name in known}
    lora, losses, steps = train.execute([model], *loaded, **inputs).args
    assert steps == 3 and len(losses["loss"]) == 6 and all(x == x for x in losses["loss"])
    sources = [more["concat_latent_image"][0] for [[_, more]] in loaded[1]]
    given = torch.cat(seen)[:, 4:]
    assert len(given) == 3 * 2 and all(  # one source for each latent
        any(torch.allclose(one, source, atol=1e-4) for source in sources) for one in given
    )
    moved = [name for name, weight in lora.items() if "lora_up" in name and weight.abs().max() > 0]
    assert any("input_blocks_0_0" in name or "input_blocks.0.0" in name for name in moved), moved
    assert torch.equal(first, model.model.diffusion_model.input_blocks[0][0].weight)


def test_a_picture_that_cannot_be_read(data: Path) -> None:
    row = next(stored_rows(data))
    row["edited_image"] = {"bytes": b"no picture"}
    with pytest.raises(ValueError, match=f"Pair {row['key']}: edited_image cannot be read"):
        encoded(iter([row]), Pack(), AveragingVAE(), shared_clip())
    with pytest.raises(ValueError, match="there are no pairs in parquet"):
        next(stored_rows(data / "blocks"))
