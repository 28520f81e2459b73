"""Small nets of every kind of layer and head against what AlexeyAB's program said of them.

The numbers were recorded by benchmarks/darknet_record.py; weights and photos are those of `formula`.
"""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image

from fer.darknet.formats.cfg import layers, parse
from fer.darknet.formats.weights import open_net
from fer.darknet.torch_engine import scores as native
from fer.darknet.torch_engine.network import DarknetNetwork, fuse, summary
from fer.darknet.torch_engine.onednn import pack
from fer.darknet.torch_engine.training.losses import YoloLoss
from fer.darknet.torch_engine.training.module import DarknetTraining
from fer.darknet.torch_engine.weights_io import load_weights, save_weights
from tests.darknet.formula import BOXES, fill, photo, scored_photos, stored, training_photo

RECORDED = Path(__file__).parent / "recorded"
LAYERS, LOSSES, MAPS = (json.loads((RECORDED / f"{name}.json").read_text()) for name in ("layers", "losses", "maps"))


@pytest.mark.parametrize("name", LAYERS)
def test_layers_say_what_the_program_says(tmp_path, name):
    net = LAYERS[name]
    for file, text in net.get("files", {}).items():
        (tmp_path / file).write_text(text)
    sections = parse(net["cfg"], str(tmp_path / "net.cfg"))
    network = fill(DarknetNetwork(sections))
    # whatever was read in the program's order is what was written in ours
    save_weights(network, tmp_path / "net.weights")
    again = DarknetNetwork(sections).eval()
    assert load_weights(again, tmp_path / "net.weights") == len(layers(sections))
    packed = fuse(again)
    pack(packed)
    expected = np.array(net["output"])
    for each in (network, again, packed):
        with torch.inference_mode():
            found = each(torch.from_numpy(photo(network)))[0].numpy()
        if network.heads:
            found = np.concatenate([found[:, :4], found[:, 4:5] * found[:, 5:]], axis=1)
            if "tree" in sections[-1].options:
                # the program lists the one class of a tree without the objectness
                with torch.inference_mode():
                    found[:, 4:] = each(torch.from_numpy(photo(network)))[0].numpy()[:, 5:]
        assert found.ravel() == pytest.approx(expected, rel=2e-5, abs=2e-6)
    assert np.ptp(expected) > 0.01


def test_bflops_are_the_programs():
    # 0.0283 of the convolution, 0.0005 of the sum and as many of a pooling; the connected layers' 0.012 don't count
    total = re.search(r"Total BFLOPs ([\d.]+)", summary(parse(LAYERS["operations"]["cfg"])))
    assert float(total[1]) == LAYERS["operations"]["bflops"] == 0.029


def trained_once(name, folder):
    """The net of LOSSES with the formula's weights, the loss of its first iteration, and the net after it."""
    sections = parse(LOSSES[name]["cfg"], "net.cfg")
    module = DarknetTraining(sections, [str(folder / "photo.png")], ["class0", "class1"], 0)
    fill(module.network).train()
    Image.fromarray(training_photo(module.network)).save(folder / "photo.png")
    (folder / "photo.txt").write_text("".join(" ".join(map(str, box)) + "\n" for box in BOXES))
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module)
    return module


@pytest.mark.parametrize("name", LOSSES)
def test_first_losses_are_the_programs(name):
    loss, heads = LOSSES[name]["printed"]
    sections = parse(LOSSES[name]["cfg"])
    network = fill(DarknetNetwork(sections)).train()
    pixels = torch.from_numpy(training_photo(network)).permute(2, 0, 1).float().expand(2, -1, -1, -1) / 255
    with torch.no_grad():
        value, statistics = YoloLoss(sections)(network(pixels), torch.tensor(BOXES).expand(2, -1, -1))
    assert value.item() == pytest.approx(loss, rel=2e-6)
    # the program prints 1 where it trained no box
    assert [max(1, int(count)) for count in statistics["count"]] == [int(head[0]) for head in heads]
    for key, column in (("class_loss", 1), ("iou_loss", 2)):
        assert statistics[key].tolist() == pytest.approx([head[column] for head in heads], rel=1e-5, abs=2e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_weights_after_the_first_iteration_are_the_programs(tmp_path, name):
    before = stored(fill(DarknetNetwork(parse(LOSSES[name]["cfg"]))))
    module = trained_once(name, tmp_path)
    assert module.iteration == 1 and module.loss == pytest.approx(LOSSES[name]["printed"][0], rel=2e-6)
    after, expected = stored(module.network), np.array(LOSSES[name]["weights"])
    moved = np.abs(expected - before).max()
    assert moved > 1e-3 and np.abs(after - expected).max() < 1e-4 * moved


@pytest.mark.parametrize("name", MAPS)
def test_map_and_counts_are_what_detector_map_prints(tmp_path, name):
    (tmp_path / "net.cfg").write_text(MAPS[name]["cfg"])
    network = fill(DarknetNetwork(parse(MAPS[name]["cfg"])))
    names = [f"class{label}" for label in range(network.classes)]
    save_weights(network, tmp_path / "net.weights")
    (tmp_path / "emotion.names").write_text("".join(f"{each}\n" for each in names))
    photos = scored_photos(network, tmp_path)
    (tmp_path / "test.txt").write_text("".join(f"{photo}\n" for photo in photos))
    apart = 0
    for printed in MAPS[name]["printed"]:
        thresholds = printed["threshold"], printed["iou_threshold"]
        scores = native.detector_map(
            open_net(tmp_path / "net.weights"), names, tmp_path / "test.txt", "cpu", *thresholds
        )
        assert (scores["threshold"], scores["iou_threshold"]) == thresholds
        counts = [scores[key] for key in ("tp", "fp", "fn")]
        assert counts == printed["counts"] and scores["map"] == pytest.approx(printed["map"], abs=1e-6)
        assert 100 * scores["iou"] == pytest.approx(printed["iou"], abs=0.006)
        rows = [[100 * row["ap"], row["tp"], row["fp"]] for row in scores["per_class"]]
        assert np.array(rows) == pytest.approx(np.array(printed["classes"]), abs=0.006)
        apart += scores["by_confidence"]["tp"] - scores["tp"]
    # counted by falling confidence they would be others
    assert apart > 10
