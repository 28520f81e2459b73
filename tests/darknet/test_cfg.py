"""Reading and writing .cfg files, and the layers they make, against worked examples, OpenCV and the program."""

import re
import struct
import subprocess

import cv2
import pytest

from fer.darknet.design.architectures import RECIPES, recipe
from fer.darknet.design.fit import fit
from fer.darknet.formats.cfg import Section, cell_side, classes_of, layers, parse, read_cfg, render, task_of
from fer.darknet.formats.weights import weights_bytes
from fer.errors import InputError

NET = "[net]\nwidth=32\nheight=32\nchannels=3\n"
CONV = "[convolutional]\nbatch_normalize=1\nfilters=8\nsize=3\nstride=1\npad=1\nactivation=leaky\n"
YOLO = "[convolutional]\nfilters=36\nactivation=linear\n[yolo]\nclasses=7\nnum=3\nmask=0,1,2\nanchors=1,2,3,4,5,6\n"
# halved six times and doubled once, beside what it was
DOWN = CONV.replace("stride=1", "stride=2") * 6 + "[upsample]\nstride=2\n[route]\nlayers=-1,4\n"
SOFTMAX = "[avgpool]\n[convolutional]\nfilters=7\nactivation=linear\n[softmax]\n"

# every rule, with the shape and the number of floats worked by hand
RULES = [
    # 32x32x3; 8 x (3 * 9 weights + bias, scale, mean, variance)
    (CONV, (32, 32, 8), 8 * (27 + 4)),
    # (32 + 2 * 1 - 3) // 2 + 1; no batch normalisation: only a bias each
    ("[convolutional]\nfilters=4\nsize=3\nstride=2\npad=1\nactivation=linear\n", (16, 16, 4), 4 * (8 * 9 + 1)),
    # pad=0: 16 - 5 + 1; two groups of two channels
    ("[convolutional]\nfilters=6\nsize=5\nstride=1\ngroups=2\nactivation=linear\n", (12, 12, 6), 6 * (2 * 25 + 1)),
    # padding=2 pads by itself: 12 + 4 - 3 + 1
    ("[convolutional]\nfilters=6\nsize=3\nstride=1\npadding=2\nactivation=linear\n", (14, 14, 6), 6 * (6 * 9 + 1)),
    # padding is size - 1 over both sides: (14 + 1 - 2) // 2 + 1
    ("[maxpool]\nsize=2\nstride=2\n", (7, 7, 6), 0),
    ("[maxpool]\nsize=2\nstride=1\n", (7, 7, 6), 0),
    ("[maxpool]\nsize=3\nstride=1\npadding=0\n", (5, 5, 6), 0),
    ("[route]\nlayers=-2,5\n", (7, 7, 12), 0),
    ("[dropout]\nprobability=.5\n", (7, 7, 12), 0),
    ("[upsample]\nstride=2\n", (14, 14, 12), 0),
    ("[route]\nlayers=3\n", (14, 14, 6), 0),
    ("[shortcut]\nfrom=-8\nactivation=linear\n", (14, 14, 6), 0),
    ("[reorg]\nstride=2\n", (7, 7, 24), 0),
    ("[connected]\noutput=5\nactivation=linear\n", (1, 1, 5), 5 + 5 * 7 * 7 * 24),
    ("[softmax]\ngroups=1\n", (1, 1, 5), 0),
    ("[cost]\ntype=sse\n", (1, 1, 5), 0),
]


def test_layers_follow_the_rules_worked_by_hand():
    made = layers(parse(NET + "".join(text for text, _, _ in RULES)))
    assert [layer.index for layer in made] == list(range(len(RULES)))
    assert [(layer.shape, layer.floats) for layer in made] == [(shape, floats) for _, shape, floats in RULES]


@pytest.mark.darknet
def test_layers_are_those_of_the_program(tmp_path):
    text = NET + "[crop]\ncrop_width=28\ncrop_height=24\n" + "".join(text for text, _, _ in RULES)
    text = text.replace("[shortcut]\nfrom=-8\n", "[shortcut]\nfrom=4\n").replace("layers=-2,5", "layers=-2,6")
    text = text.replace("[route]\nlayers=3\n", "[route]\nlayers=4\n")
    _compare_with_the_program(tmp_path, parse(text))


@pytest.mark.darknet
@pytest.mark.parametrize("name", ["classifier_tiny", "classifier_small", "v3_tiny"])
def test_debians_program_takes_the_recipes_that_it_supports(tmp_path, name):
    # one photo, so that the program does not ask for memory for a batch of 128
    sections = recipe(name)
    sections[0].options.update(batch="1", subdivisions="1")
    _compare_with_the_program(tmp_path, sections)


def _compare_with_the_program(folder, sections):
    """Output shapes as Debian's program prints them, and the size of the weights that it writes, must be ours."""
    (folder / "net.cfg").write_text(render(sections))
    (folder / "empty.weights").write_bytes(struct.pack("<3iQ", 0, 2, 0, 0))
    done = subprocess.run(
        ["darknet", "partial", "net.cfg", "empty.weights", "out.weights", "1000"],
        cwd=folder, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert "Unused field" not in done.stderr and "Couldn't find" not in done.stderr, done.stderr
    rows = re.findall(r"^ *(\d+) .*-> +(\d+) x *(\d+) x *(\d+)", done.stderr, re.MULTILINE)
    shapes = {int(index): (int(width), int(height), int(channels)) for index, width, height, channels in rows}
    made = layers(sections)
    assert (folder / "out.weights").stat().st_size == weights_bytes(sections)
    # of the other kinds the program does not always print width, height and channels
    assert shapes.keys() >= {layer.index for layer in made if layer.kind in ("convolutional", "maxpool", "upsample")}
    assert {index: made[index].shape for index in shapes} == shapes


@pytest.mark.parametrize("name", RECIPES)
def test_opencv_makes_the_same_layers(tmp_path, name):
    sections = fit(recipe(name), {"size": 64}, 7, 1000)
    (tmp_path / "net.cfg").write_text(render(sections))
    with (tmp_path / "net.weights").open("wb") as file:
        file.write(struct.pack("<3iQ", 0, 2, 5, 0))
        file.truncate(weights_bytes(sections))
    net = cv2.dnn.readNetFromDarknet(str(tmp_path / "net.cfg"), str(tmp_path / "net.weights"))
    ids, _, outputs = net.getLayersShapes([[1, 3, 64, 64]])
    shapes = {net.getLayer(int(id)).name: tuple(map(int, out[0])) for id, out in zip(ids, outputs, strict=True)}
    made = layers(sections)
    opencvs = {
        "convolutional": "conv", "maxpool": "pool", "avgpool": "avgpool", "softmax": "softmax", "upsample": "upsample",
        "shortcut": "shortcut",
    }  # fmt: skip
    for layer in made:
        if layer.kind in opencvs:
            width, height, channels = layer.shape
            assert shapes.pop(f"{opencvs[layer.kind]}_{layer.index}") == (1, channels, height, width)
        if layer.kind == "yolo":
            # one row a box: 4 numbers, objectness, classes
            width, height, channels = layer.shape
            assert shapes.pop(f"yolo_{layer.index}") == (width * height * channels // 12, 12)
    assert not [name for name in shapes if name.startswith(tuple(opencvs.values())) or name.startswith("yolo")]


def test_parse_reads_as_the_program_does():
    text = "# comment\n\n [network]\nwidth = 4 16\r\n;other\nwidth=5\nbatch=8 # last\n[conv]\nfilters=\t2\n[max]\n"
    assert parse(text) == [
        Section("net", {"width": "416", "batch": "8"}),
        Section("convolutional", {"filters": "2"}),
        Section("maxpool", {}),
    ]
    assert [section.line for section in parse(text)] == [3, 8, 10]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_a_file_is_read_whatever_mark_an_editor_put_before_it(tmp_path, encoding):
    text = "[net]\r\n# größer\r\nwidth=64\r\n"
    (tmp_path / "a.cfg").write_bytes(text.encode(encoding))
    assert read_cfg(tmp_path / "a.cfg") == [Section("net", {"width": "64"})]
    with pytest.raises(InputError, match="b.cfg: cannot be read"):
        read_cfg(tmp_path / "b.cfg")


@pytest.mark.parametrize("name", RECIPES)
def test_rendered_recipes_parse_back(name):
    assert parse(render(recipe(name))) == recipe(name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"a.cfg: holds no section"),
        ("[convolutional]\n", r"a.cfg:1: \[convolutional\] comes first; a cfg begins with \[net\]"),
        ("width=3\n[net]\n", r"a.cfg:1: width=3 comes first; a cfg begins with \[net\]"),
        ("[net]\nwidth\n", r"a.cfg:2: 'width' is no \[section\], key=value or # comment"),
        ("[net]\nwidth=\n", r"a.cfg:2: 'width='"),
        ("[net]\n[convolutionl]\n", r"a.cfg:2: unknown section \[convolutionl\]; known: convolutional, maxpool"),
        ("[net]\n[lstm]\n", r"a.cfg:2: \[lstm\] remembers what came before, for text or video: neither engine"),
        ("[net]\n[lrn]\n", r"a.cfg:2: \[lrn\] is a layer of darknet that is in neither engine here"),
        ("[net]\nheight=32\nchannels=3\n" + CONV, r"a.cfg:1: \[net\]: needs width="),
        (NET.replace("32", "32.5") + CONV, r"a.cfg:1: \[net\]: width=32.5 is no whole number$"),
        (NET.replace("32", "416;") + CONV, r"a.cfg:1: \[net\]: width=416; is no whole number: write 416$"),
        (NET.replace("32", "416.0") + CONV, r"a.cfg:1: \[net\]: width=416.0 is no whole number: write 416$"),
        (NET.replace("32", "٣٢") + CONV, r"a.cfg:1: \[net\]: width=٣٢ is no whole number$"),
        # anchors for all of them would be made, of which its mask takes three
        (NET + CONV + YOLO.replace("num=3", "num=99999999999"), r"\[yolo\]: num=99999999999 are more than 1,000 boxes"),
        (NET, r"a.cfg: \[net\] is followed by no layer"),
        (NET + CONV + NET, r"a.cfg:12: \[net\]: comes twice"),
        (NET + CONV + "[route]\nlayers=-2\n", r"a.cfg:12: \[route\]: layers=-2 is outside of layers 0 to 0"),
        (NET + CONV + "[route]\nlayers=a\n", r"a.cfg:12: \[route\]: layers=a is no whole number"),
        (NET + CONV + "[route]\n", r"a.cfg:12: \[route\]: needs layers="),
        (NET + CONV + "[maxpool]\nstride=2\n[route]\nlayers=0,1\n", r"different width and height \(0: 32x32x8, 1: 16x"),
        (NET + CONV + "[route]\nlayers=0\ngroups=3\n", "groups=3 and group_id do not fit 8 channels"),
        (NET + CONV + "[convolutional]\nfilters=9\ngroups=2\n", "groups=2 do not divide 8 channels and filters=9"),
        (NET + CONV + "[convolutional]\nantialiasing=1\n", "antialiasing= is in no engine here"),
        (NET + CONV + "[convolutional]\nfilters=9\nshare_index=0\n", "share_index=0 is no convolution with weights as"),
        (NET + "[crop]\ncrop_width=33\ncrop_height=8\n", "cuts 33x8 out of 32x32x3: make the input larger"),
        (NET + CONV + CONV + "[scale_channels]\nfrom=0\n", "scales layer 0 of 32x32x8 by 32x32x8"),
        (NET + CONV + "[avgpool]\n[sam]\nfrom=0\n", "multiplies layer 0 of 32x32x8 by 1x1x8"),
        (
            NET + "[connected]\noutput=9\n[detection]\nside=1\nclasses=4\ncoords=4\nnum=2\n",
            r"a.cfg:5: \[connected\]: 9 numbers \(output=\), but the \[detection\] after it needs 14",
        ),
        # 72, 36, 18, 9, 5, 3, 2: twice 2 are no 3
        (NET.replace("32", "72") + DOWN + YOLO, "width=72 is no multiple of 64, this net's stride"),
        (NET + CONV + "[convolutional]\nsize=64\n", "its input of 32x32x8 is too small"),
        (NET + CONV + "[maxpool]\nsize=129\nstride=1\n", "size=129 and padding=128 reach too far beyond 32x32x8"),
        (
            NET + CONV + YOLO.replace("36", "255"),
            r"a.cfg:12: \[convolutional\]: 255 channels \(filters=\), but the \[yolo\] after it needs 36"
            r" = \(classes \+ 5\) \* 3 boxes",
        ),
    ],
)
def test_what_cannot_be_is_named(text, message):
    with pytest.raises(InputError, match=message) as error:
        layers(parse(text, "a.cfg"))
    assert "\n" not in str(error.value)


# as RULES; the first layer is 32x32x8
NEWER_RULES = [
    (CONV, (32, 32, 8), 8 * (27 + 4)),
    ("[batchnorm]\n", (32, 32, 8), 4 * 8),
    # strides of their own: (32 - 1) // 4 + 1 and // 2
    ("[convolutional]\nfilters=8\nstride_x=4\nstride_y=2\n", (8, 16, 8), 8 * 9),
    # the same weights again, and none in the file
    ("[convolutional]\nfilters=8\nshare_index=-1\n", (8, 16, 8), 0),
    ("[local_avgpool]\nsize=4\nstride=4\n", (2, 4, 8), 0),
    # a bias and 8 * 3 * 3 weights for each number that comes out
    ("[local]\nfilters=2\nsize=3\nstride=1\npad=1\n", (2, 4, 2), 2 * 4 * 2 * (1 + 72)),
    ("[local]\nfilters=2\nsize=2\nstride=1\n", (1, 3, 2), 1 * 3 * 2 * (1 + 8)),
    ("[avgpool]\n", (1, 1, 2), 0),
    ("[scale_channels]\nfrom=-3\n", (2, 4, 2), 0),
    ("[sam]\nfrom=5\n", (2, 4, 2), 0),
    ("[reorg3d]\nstride=2\n", (1, 2, 8), 0),
    ("[reorg3d]\nstride=2\nreverse=1\n", (2, 4, 2), 0),
    ("[crop]\ncrop_width=1\ncrop_height=3\n", (1, 3, 2), 0),
    # 3 x 3 cells of (4 + 1) a box and 1 class
    ("[connected]\noutput=54\n", (1, 1, 54), 54 * 7),
    ("[detection]\nside=3\nclasses=1\ncoords=4\nnum=1\n", (1, 1, 54), 0),
]


def test_newer_layers_follow_the_rules_worked_by_hand():
    made = layers(parse(NET + "".join(text for text, _, _ in NEWER_RULES)))
    assert [(layer.shape, layer.floats) for layer in made] == [(shape, floats) for _, shape, floats in NEWER_RULES]


def test_the_side_of_a_detectors_cells():
    assert cell_side(parse(NET + DOWN + YOLO)) == 64
    # a smaller stride asks for 32 all the same, as the program warns; a net without cells for nothing
    assert cell_side(parse(NET + CONV + YOLO)) == 32
    assert cell_side(parse(NET + DOWN + SOFTMAX)) == 1


def test_tasks_and_classes():
    detector, classifier = parse(NET + CONV + YOLO), parse(NET + CONV + SOFTMAX)
    assert (task_of(detector), classes_of(detector)) == ("detector", 7)
    assert (task_of(classifier), classes_of(classifier)) == ("classifier", 7)
    with pytest.raises(InputError, match=r"a.cfg: no \[yolo\], \[region\] or \[softmax\]"):
        task_of(parse(NET + CONV, "a.cfg"))
