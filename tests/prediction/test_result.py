"""What a predictor gives: results of one picture, of many, of folders and videos, and what can be made of them."""

import io
import json
import multiprocessing
import pickle
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import cv2
import numpy as np
import pandas as pd
import pytest
import skimage.data
import torch
import torchvision
from PIL import Image
from torch import nn

from fer import Face, InputError, Predictor, Result, load_checkpoint
from fer.models.classifier import EmotionClassifier
from fer.models.embedding import Embedder
from fer.models.registry import TIMM, TORCHVISION
from fer.prediction.pictures import Pictures
from fer.prediction.table import columns
from tests.conftest import main

PHOTO = skimage.data.astronaut()


def detector(picture):
    """Two boxes, by hand; module level, as it must be for other processes."""
    return [(166, 62, 116, 116), (0, 0, 50, 40)], [2.0, 1.0]


@pytest.fixture(scope="module")
def predictor():
    return Predictor.load("fer2013_vgg9", faces=detector, device="cpu")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with a photo, a broken one and a video of five frames, whose number is their grey."""
    folder = tmp_path_factory.mktemp("photos")
    Image.fromarray(PHOTO).save(folder / "a.png")
    (folder / "b.jpg").write_bytes(b"\xff\xd8 no photo")
    writer = cv2.VideoWriter(str(folder / "c.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (320, 240))
    for number in range(5):
        writer.write(np.full((240, 320, 3), 40 * number, np.uint8))
    writer.release()
    return folder


def test_one_picture_gives_a_result_that_is_its_list_of_faces(predictor):
    result = predictor(PHOTO)
    assert isinstance(result, Result) and isinstance(result, list) and len(result) == 2
    assert result == list(result) == predictor.batch([PHOTO])[0] and all(isinstance(face, Face) for face in result)
    assert result.error is result.path is result.frame is None and result.labels == predictor.labels
    assert repr(result).startswith("Result([Face(box=(0.0, 0.0, 50.0, 40.0), ")
    # no copy is made
    assert np.shares_memory(result.picture, PHOTO)


def test_all_kinds_of_one_picture_give_the_same_faces(predictor, files):
    expected = predictor(PHOTO)
    tensor = torch.from_numpy(PHOTO).permute(2, 0, 1)
    content = (files / "a.png").read_bytes()
    many = [files / "a.png", str(files / "a.png"), content, Image.open(files / "a.png"), PHOTO / 255, tensor]
    results = predictor(many)
    assert results == [expected] * 6 and [predictor(each) for each in many] == results
    path = str(files / "a.png")
    assert [result.path for result in results] == [path, path, None, path, None, None]
    assert predictor(np.stack([PHOTO] * 2)) == predictor(torch.stack([tensor] * 2)) == [expected] * 2


def test_a_single_picture_that_cannot_be_read_raises_and_one_of_many_says_why(predictor, files):
    with pytest.raises(InputError, match=r"b.jpg: not an image"):
        predictor(files / "b.jpg")
    unreadable = [files / "b.jpg", files, "no.jpg", b"?", None, np.zeros((2, 2), np.int32), [PHOTO]]
    results = predictor([PHOTO, *unreadable, PHOTO])
    assert len(results) == 9 and results[0] == results[-1] == predictor(PHOTO)
    said = ["not an image", "a folder; give it alone", "missing file", "no photo", "NoneType", "int32", "got list"]
    for result, reason in zip(results[1:-1], said, strict=True):
        assert result == [] and reason in result.error
        with pytest.raises(InputError, match=re.escape(result.error)):
            result.plot()
    assert results[1].path == str(files / "b.jpg")
    assert predictor([]) == [] and predictor(["no.jpg"])[0].error


def test_an_open_file_is_one_picture_and_is_read_once(predictor, files):
    expected = predictor(files / "a.png")
    with open(files / "a.png", "rb") as file:
        result = predictor(file)
    # the file is closed, and the picture is there
    assert result == expected and np.array_equal(result.picture, PHOTO)
    assert predictor([io.BytesIO((files / "a.png").read_bytes()), PHOTO]) == [expected] * 2
    with pytest.raises(InputError, match="an open file that can't be read"):
        predictor(file)
    with pytest.raises(InputError, match='a file of text; open it with "rb"'):
        predictor(io.StringIO("a.png"))
    with pytest.raises(InputError, match="got dict"):
        predictor({"a.png": PHOTO})


def test_a_video_or_pattern_that_is_given_as_a_picture_says_stream(predictor, files):
    for given, kind in ((files / "c.avi", "a video"), (str(files / "*.png"), "a pattern")):
        with pytest.raises(InputError, match=f"{kind}; give it alone, with stream=True"):
            predictor(given)
    with pytest.raises(InputError, match="min_confidence=50 is not a probability"):
        Predictor.load("fer2013_vgg9", faces=detector, device="cpu", min_confidence=50)


def test_generators_are_read_as_they_are_needed(predictor):
    taken = []

    def pictures():
        for number in range(6):
            taken.append(number)
            yield PHOTO if number != 2 else "no.jpg"

    results = predictor(pictures(), stream=True, batch=1)
    assert taken == []
    for number, result in enumerate(results):
        # the frames of a camera do not wait for later ones
        assert taken[-1] == number and bool(result.error) == (number == 2)
    # without stream a list, in order
    assert [bool(result.error) for result in predictor(pictures())] == [number == 2 for number in range(6)]

    def breaks():
        yield PHOTO
        raise OSError("the camera is gone")

    with pytest.raises(OSError, match="the camera is gone"):
        predictor(breaks())


def test_a_folder_is_streamed_with_its_videos_frame_by_frame(predictor, files):
    photo, broken, *frames = predictor(files, stream=True)
    assert photo == predictor(PHOTO) and photo.path == str(files / "a.png")
    assert broken.error == f"{files / 'b.jpg'}: not an image" and broken == []
    assert [frame.frame for frame in frames] == [0, 1, 2, 3, 4]
    assert [frame.time for frame in frames] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    for number, frame in enumerate(frames):
        assert frame.path == str(files / "c.avi") and len(frame) == 2
        assert frame.picture.shape == (240, 320, 3) and abs(frame.picture.mean() - 40 * number) < 3
    assert len(list(predictor(str(files / "*.png"), stream=True))) == 1
    with pytest.raises(InputError, match="a folder; give it alone, with stream=True"):
        predictor(files)
    with pytest.raises(InputError, match="no such photo, video, folder"):
        predictor(files / "none", stream=True)


def test_plain_data_and_a_table(predictor, files):
    result = predictor(files / "a.png")
    plain = json.loads(json.dumps(result.to_dict()))
    assert plain["path"] == str(files / "a.png") and plain["error"] is None and len(plain["faces"]) == 2
    assert plain["faces"][1]["box"] == {"x": 166, "y": 62, "width": 116, "height": 116}
    assert plain["faces"][1]["probabilities"] == result[1].probabilities and "embedding" not in plain["faces"][1]
    assert predictor(["no.jpg"])[0].to_dict() == {
        "path": "no.jpg", "frame": None, "time": None, "error": "no.jpg: missing file", "faces": []
    }  # fmt: skip
    table = result.to_pandas()
    assert tuple(table.columns) == columns(predictor.labels) and len(table) == 2
    assert table["x"].tolist() == [0, 166] and table["label"].tolist() == [face.label for face in result]
    assert list(predictor(["no.jpg"])[0].to_pandas().columns) == list(table.columns)


def test_the_table_is_that_of_the_command_line(files, tmp_path):
    words = ["ckpt=fer2013_vgg9", "faces=whole", "device=cpu", "draw=false", f"out={tmp_path}/out"]
    main("predict.py", f"source={files}/a.png", *words)
    ours = Predictor.load("fer2013_vgg9", faces="whole", device="cpu")(files / "a.png").to_pandas()
    theirs = pd.read_csv(tmp_path / "out/predictions.csv")
    pd.testing.assert_frame_equal(ours.astype(theirs.dtypes), theirs)


def test_the_picture_is_read_again_when_it_is_drawn(predictor, tmp_path):
    Image.fromarray(PHOTO).save(tmp_path / "a.png")
    result = predictor(tmp_path / "a.png")
    drawn = result.plot()
    np.testing.assert_array_equal(drawn, Pictures(tmp_path, None, False).annotate(PHOTO, result))
    # lines where the boxes are, and the photo itself is as it was
    assert (drawn[100, 160:172] != PHOTO[100, 160:172]).any() and (result.picture == PHOTO).all()
    (tmp_path / "a.png").unlink()
    with pytest.raises(InputError, match=r"a.png: missing file"):
        result.plot()
    assert "a.png: missing file" in result._repr_html_()


def test_crops_are_saved_by_label_and_replace_nothing(predictor, tmp_path):
    result = predictor(PHOTO)
    paths = result.save_crops(tmp_path / "crops")
    assert [path.parent.name for path in paths] == [face.label for face in result]
    np.testing.assert_array_equal(np.asarray(Image.open(paths[1])), PHOTO[62:178, 166:282])
    again = result.save_crops(tmp_path / "crops")
    assert len({*paths, *again}) == 4 and all(path.is_file() for path in (*paths, *again))
    unnamed = Result([Face((0, 0, 9, 8), {"a": 1.0}, None, 1.0, None), Face((600, 0, 9, 9), {}, "a", 1.0, None)], PHOTO)
    (path,) = unnamed.save_crops(tmp_path)
    assert path == tmp_path / "unnamed/picture_1.png" and Image.open(path).size == (9, 8)


def test_crops_that_cannot_be_written_are_one_line(tmp_path):
    result = Result([Face((0, 0, 9, 8), {"a": 1.0}, "a", 1.0, None)], PHOTO)
    (tmp_path / "file").write_text("kept")
    # no folder can be made in /proc, by nobody
    for folder in (tmp_path / "file", tmp_path / "file/deeper", "/proc/crops"):
        with pytest.raises(InputError, match=rf"^{folder}: no crops can be written there \(.+\); give another folder$"):
            result.save_crops(folder)
    assert (tmp_path / "file").read_text() == "kept"


def test_names_from_outside_are_no_paths_and_no_html(tmp_path):
    face = Face((0, 0, 9, 9), {"<b>": 0.25, "../../up": 0.75}, "../../up", 0.75, None)
    result = Result([face], PHOTO, ("<b>", "../../up"), path="/photos/<script>alert(1)</script>.png")
    (path,) = result.save_crops(tmp_path / "crops")
    assert path.parent.parent == tmp_path / "crops" and path.is_file()
    # 1,200 bytes are no file's name
    (path,) = Result([replace(face, label="é" * 600)], PHOTO, path="ü" * 600).save_crops(tmp_path)
    assert path == tmp_path / ("é" * 60) / f"{'ü' * 50}_1.png" and path.is_file()
    html = result._repr_html_()
    assert "<script" not in html and "<b></b>" not in html and "&lt;b&gt;" in html and "75.0%" in html
    assert "<script" not in Result(error="<script>", path="<script>")._repr_html_()


def test_results_go_to_other_processes(predictor):
    result = predictor(PHOTO, embed=True)
    copy = pickle.loads(pickle.dumps(result))
    assert copy == result and copy.labels == result.labels and (copy.plot() == result.plot()).all()
    assert (copy[0].embedding == result[0].embedding).all()


def _name(predictor):
    torch.set_num_threads(1)
    return predictor(PHOTO), repr(predictor)


def test_a_predictor_goes_to_a_spawned_process(tmp_path, monkeypatch):
    ours = Predictor.load("fer2013_vgg9", faces=detector, device="cpu", margin=0.3, min_confidence=0.5)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        theirs, shown = pool.apply(_name, (ours,))
    here = ours(PHOTO)
    assert [face.box for face in theirs] == [face.box for face in here]
    for face, other in zip(theirs, here, strict=True):
        assert face.probabilities == pytest.approx(other.probabilities, abs=1e-5)
    assert shown == repr(ours) == "Predictor('fer2013_vgg9', network='vgg9', faces='detector', device='cpu')"


def test_a_path_holds_in_another_folder(tmp_path, monkeypatch):
    from fer.models.checkpoint import save_weights

    save_weights(load_checkpoint("fer2013_vgg9"), tmp_path / "net.safetensors")
    monkeypatch.chdir(tmp_path)
    content = pickle.dumps(Predictor.load("net.safetensors", faces="whole", device="cpu"))
    monkeypatch.chdir("/")
    assert repr(pickle.loads(content)).startswith("Predictor('net.safetensors', network='vgg9', ")


def test_a_closed_predictor_says_so():
    with Predictor.load("fer2013_vgg9", faces="whole", device="cpu") as predictor:
        assert len(predictor(PHOTO)) == 1
        results = predictor([PHOTO] * 100, stream=True, batch=1)
        next(results)
    for call in (lambda: predictor(PHOTO), lambda: predictor.batch([PHOTO]), lambda: predictor.labels):
        with pytest.raises(InputError, match="was closed; open another one"):
            call()
    with pytest.raises(InputError, match="was closed"):
        list(results)
    predictor.close()
    assert repr(predictor) == "Predictor(closed)"
    # no thread is left behind
    before = threading.active_count()
    for _ in range(3):
        with Predictor.load("fer2013_vgg9", faces="whole", device="cpu") as other:
            other.batch([PHOTO] * 4)
    for thread in threading.enumerate():
        if thread.name.startswith("faces"):
            thread.join(timeout=0.5)
    assert threading.active_count() <= before


def test_a_call_that_another_thread_closes_the_predictor_under_says_so():
    started, closed = threading.Event(), threading.Event()

    def slow(picture):
        if picture.shape != PHOTO.shape:
            return [], []  # the first, empty call of `open_detector`
        started.set()
        closed.wait(10)
        return [], []

    predictor = Predictor.load("fer2013_vgg9", faces=slow, device="cpu")

    def close():
        started.wait(10)
        predictor.close()
        closed.set()

    closing = threading.Thread(target=close)
    closing.start()
    with pytest.raises(InputError, match="was closed; open another one"):
        predictor([PHOTO] * 100)
    closing.join()


@pytest.mark.parametrize("every", [0, -1, 1.5, None])
def test_an_every_that_is_no_number_is_refused(predictor, every):
    with pytest.raises(InputError, match="every="):
        predictor.frames([PHOTO, PHOTO], every)


@pytest.mark.parametrize("batch", [0, -1, 1.5, True])
def test_a_batch_that_is_no_number_is_refused(predictor, batch):
    with pytest.raises(InputError, match="batch="):
        predictor([PHOTO], batch=batch)


def test_an_embedding_is_what_the_last_layer_names_the_face_by(predictor):
    plain, result = predictor(PHOTO), predictor(PHOTO, embed=True)
    # the faces are compared without it
    assert plain == result and plain[0].embedding is None
    head = load_checkpoint("fer2013_vgg9").net.head.requires_grad_(False)
    for face in result:
        assert face.embedding.shape == (256,) and face.embedding.dtype == np.float32
        logits = head.weight.numpy() @ face.embedding + head.bias.numpy()
        assert [*face.probabilities.values()] == pytest.approx(np.exp(logits) / np.exp(logits).sum(), abs=1e-5)
    assert result.to_dict()["faces"][0]["embedding"] == result[0].embedding.tolist()


def test_several_threads_have_their_own_embeddings(predictor):
    pictures = [np.roll(PHOTO, 37 * i, axis=1) for i in range(6)]
    alone = [predictor(picture, embed=True) for picture in pictures]
    with ThreadPoolExecutor(4) as pool:
        # some of the calls want none
        together = list(pool.map(lambda i: predictor(pictures[i % 6], embed=i % 3 != 0), range(24)))
    for i, result in enumerate(together):
        for face, other in zip(result, alone[i % 6], strict=True):
            if i % 3:
                np.testing.assert_allclose(face.embedding, other.embedding, rtol=1e-4, atol=1e-5)
            else:
                assert face.embedding is None


def test_of_ten_crops_the_embedding_is_the_mean_as_of_the_logits():
    ten = Predictor.load("fer2013_vgg9", faces=detector, device="cpu", tta=True, classes=["Happy", "Sad", "Fear"])
    (_, face) = ten(PHOTO, embed=True)
    head = load_checkpoint("fer2013_vgg9").net.head
    with torch.no_grad():
        logits = head(torch.from_numpy(face.embedding)).numpy()
    share = np.exp(logits)[[2, 3, 4]] / np.exp(logits)[[2, 3, 4]].sum()
    assert [*face.probabilities.values()] == pytest.approx(share, abs=1e-5)


def classifier(target, size=64, **model):
    torch.manual_seed(0)
    face = {"size": size, "color": "rgb"}
    parameters = {"labels": list("abcdefg"), "face": face, "augment": {"crop": size}, "data": {}}
    return EmotionClassifier.build({"model": {"_target_": target, **model}, **parameters}).eval()


FACES = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "name", ["resnet10t", "convnext_atto", "mobilenetv3_small_050", "deit_tiny_distilled_patch16_224"]
)
@torch.inference_mode()
def test_embeddings_of_timm_are_those_before_its_classifier(name):
    size = {"image_size": 64} if name.startswith("deit") else {}
    model = classifier(TIMM, name=name, **size)
    logits, embeddings = Embedder(model.net)(lambda: model(FACES))
    network = model.net.network
    expected = network.forward_head(network.forward_features(FACES / 255), pre_logits=True)
    torch.testing.assert_close(logits, model(FACES))
    torch.testing.assert_close(embeddings, expected)


@pytest.mark.parametrize(("name", "last"), [("resnet18", "fc"), ("mobilenet_v3_small", "classifier")])
@torch.inference_mode()
def test_embeddings_of_torchvision_are_those_before_its_last_layer(name, last):
    model = classifier(TORCHVISION, name=name)
    _, embeddings = Embedder(model.net)(lambda: model(FACES))
    # the same network whose last layer does nothing
    bare = torchvision.models.get_model(name).eval()
    layer = getattr(bare, last)
    setattr(bare, last, nn.Identity() if last == "fc" else nn.Sequential(*layer[:-1], nn.Identity()))
    state = {key: v for key, v in model.net.network.state_dict().items() if key in bare.state_dict()}
    bare.load_state_dict(state)
    torch.testing.assert_close(embeddings, bare(FACES / 255))


@torch.inference_mode()
def test_a_head_that_is_a_convolution_gives_the_mean_of_its_map():
    model = classifier(TORCHVISION, name="squeezenet1_1")
    _, embeddings = Embedder(model.net)(lambda: model(FACES))
    torch.testing.assert_close(embeddings, model.net.network.features(FACES / 255).mean((2, 3)))


class Own(nn.Module):
    """A network of the user's, whose last layer is known by its shape."""

    def __init__(self, num_classes, hidden=True):
        super().__init__()
        self.body = nn.Conv2d(3, 5, 64)
        self.head = nn.Linear(5, num_classes) if hidden else nn.Bilinear(5, 5, num_classes)

    def forward(self, images):
        features = self.body(images).flatten(1)
        return self.head(features) if isinstance(self.head, nn.Linear) else self.head(features, features)


class Twice(Own):
    def forward(self, images):
        return super().forward(images) + super().forward(images.flip(-1))


@torch.inference_mode()
def test_embeddings_of_the_users_own_network():
    own = classifier(f"{__name__}.Own")
    _, embeddings = Embedder(own.net)(lambda: own(FACES))
    torch.testing.assert_close(embeddings, own.net.network.body(FACES / 255).flatten(1))
    for model, said in (
        (classifier(f"{__name__}.Own", hidden=False), "Own: which layer gives the logits is not known"),
        (classifier(f"{__name__}.Twice"), "Twice does not use the layer that gives its logits once"),
        # two, of inputs of other sizes
        (classifier(TIMM, 240, name="crossvit_tiny_240"), "crossvit_tiny_240 does not use the layer"),
    ):
        faces = torch.zeros(1, 3, model.crop, model.crop, dtype=torch.uint8)
        with pytest.raises(InputError, match=said) as caught:
            Embedder(model.net)(lambda model=model, faces=faces: model(faces))
        assert "\n" not in str(caught.value)


def test_embeddings_of_the_command_line(files, tmp_path):
    words = ["ckpt=fer2013_vgg9", "faces=whole", "device=cpu", "draw=false", f"out={tmp_path}/out"]
    main("predict.py", f"source={files}", "embed=true", *words, code=1)
    table = pd.read_csv(tmp_path / "out/predictions.csv")
    with np.load(tmp_path / "out/embeddings.npz") as file:
        embedding, row = file["embedding"], file["row"]
    assert embedding.shape == (6, 256) and embedding.dtype == np.float32 and row.dtype == np.int64
    # one of the photos can't be read
    assert table["error"].notna().tolist() == [False, True] + [False] * 5 and row.tolist() == [0, 2, 3, 4, 5, 6]
    (face,) = Predictor.load("fer2013_vgg9", faces="whole", device="cpu")(files / "a.png", embed=True)
    assert table["file"][row[0]].endswith("a.png")
    np.testing.assert_allclose(embedding[0], face.embedding, rtol=1e-4, atol=1e-5)
    assert not list((tmp_path / "out").glob("*.tmp"))
    # those of an earlier run would belong to no row
    main("predict.py", f"source={files}/a.png", *words)
    assert not (tmp_path / "out/embeddings.npz").exists()
