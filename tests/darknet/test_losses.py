"""The programs' losses: deltas worked by hand, a program in plain Python, autograd, torchvision."""

import math
import random

import pytest
import torch
import torchvision
from torch.nn import functional as F

from fer.darknet.design.architectures import recipe
from fer.darknet.design.fit import fit
from fer.darknet.formats.cfg import parse
from fer.darknet.torch_engine.network import DarknetNetwork
from fer.darknet.torch_engine.training.losses import YoloLoss, classifier_loss, read_cost_scale
from fer.darknet.torch_engine.training.overlap_deltas import ciou_delta, diou_delta, giou_delta, iou_delta
from fer.errors import InputError


def net_text(heads, size=(64, 64), classes=2, net="", anchors="16,16, 32,16, 48,48", num=3):
    """A cfg whose heads (mask, stride, options) all have cells of 32 pixels, or 16 with stride=2 of the first layer."""
    text = f"[net]\nwidth={size[0]}\nheight={size[1]}\nchannels=3\n{net}"
    for mask, pixels, options in heads:
        filters = (5 + classes) * len(mask.split(","))
        if text.count("[") > 1:
            text += "[route]\nlayers=0\n[upsample]\nstride=2\n"
        text += f"[convolutional]\nfilters={filters}\nsize=1\nstride={pixels}\nactivation=linear\n"
        text += f"[yolo]\nmask={mask}\nanchors={anchors}\nnum={num}\nclasses={classes}\n{options}"
    return text


def loss_of(options="", mask="0,1,2", program="alexeyab", **more):
    return YoloLoss(parse(net_text([(mask, 32, options)], **more), "a.cfg"), program)


def logit(p):
    return math.log(p / (1 - p))


def deltas(loss, raw, truths):
    """The deltas (N, A, 5 + classes, rows, columns) of one head, from the gradients, and the rest."""
    raw = raw.clone().requires_grad_()
    value, statistics = loss([raw], truths)
    (gradient,) = torch.autograd.grad(value, raw)
    n, channels, rows, columns = raw.shape
    width = 5 + loss.heads[0].classes
    return (-n * gradient).view(n, channels // width, width, rows, columns), value.item(), statistics


# --- by hand ---

# One cell of 64 x 64 pixels' four of 32, one anchor of 16 x 16 pixels, a quarter of the input. The box: centre
# sigmoid(0) = .5 of cell (1, 0), so (.75, .25), .25 wide, .25 high. The truth: centre (.8, .25), .3 wide, .2 high.
ONE = {"mask": "0", "anchors": "16,16", "num": 1, "classes": 1}
TRUTH = torch.tensor([[[0, 0.8, 0.25, 0.3, 0.2], [-1, 0, 0, 0, 0]]])


def by_hand(options, program="alexeyab"):
    found, value, statistics = deltas(loss_of(options, program=program, **ONE), torch.zeros(1, 6, 2, 2), TRUTH)
    here = found[0, 0, :, 0, 1]
    # all other cells' objectness falls by .5; their boxes and classes stay
    others = found.clone()
    others[0, 0, :, 0, 1] = 0
    assert others[0, 0, 4].flatten().tolist() == [-0.5, 0, -0.5, -0.5]
    others[0, 0, 4] = 0
    assert not others.any()
    assert here[4:].tolist() == [0.5, 0.5]
    return here[:4].tolist(), value, {key: tensor.item() for key, tensor in statistics.items()}


# edges of x: .625 to .875 and .65 to .95; of y: .125 to .375 and .15 to .35. Shared .225 x .2 = .045; areas .0625 and
# .06; union .0775; IoU .580645. Enclosing .325 x .25 = .08125.
SHARED, UNION, ENCLOSING = 0.045, 0.0775, 0.08125


def edges_by_hand():
    """Derivatives of the IoU by left, right, top and bottom: (union * dI - I * dU) / union^2, dU = dX - dI."""

    def iou(d_area, d_shared):
        return (UNION * d_shared - SHARED * (d_area - d_shared)) / UNION**2

    # the shared area's edges: the right one is the box's; the rest the truth's. dX is the other side, .25
    return iou(-0.25, 0), iou(0.25, 0.2), iou(-0.25, 0), iou(0.25, 0)


def test_mse_by_hand():
    # x: .8 * 2 - 1 = .6 - .5; y: .25 * 2 = .5 - .5; ln(.3 / .25), ln(.2 / .25), times 2 - .06
    plain = [1.94 * 0.1, 0, 1.94 * math.log(1.2), 1.94 * math.log(0.8)]
    for program, factor in (("alexeyab", 0.75), ("pjreddie", 1)):
        box, value, statistics = by_hand("", program)
        assert box == pytest.approx([factor * number for number in plain], abs=1e-6)
        squares = sum(number**2 for number in box)
        assert value == pytest.approx(squares + 5 * 0.25)
        assert statistics == pytest.approx(
            {"iou": SHARED / UNION, "class": 0.5, "obj": 0.5, "no_obj": 0.5, "recall50": 1, "recall75": 0, "count": 1}
            | {"class_loss": 1.25, "iou_loss": squares, "total_loss": 1.25 + squares}
        )
    assert by_hand("iou_normalizer=2\n")[0] == pytest.approx([2 * number for number in plain], abs=1e-6)


def test_iou_and_giou_by_hand():
    left, right, top, bottom = edges_by_hand()
    iou = [left + right, top + bottom, right - left, bottom - top]
    box, value, statistics = by_hand("iou_loss=iou\niou_normalizer=.1\n")
    assert box == pytest.approx([0.1 * number for number in iou], rel=1e-5, abs=1e-6)
    assert value == pytest.approx(0.1 * (1 - SHARED / UNION) + 1.25)

    # GIoU adds union / enclosing's: (C * dU - U * dC) / C^2. Of the enclosing box left, top and bottom are the box's
    def more(d_union, d_enclosing):
        return (ENCLOSING * d_union - UNION * d_enclosing) / ENCLOSING**2

    left, right = left + more(-0.25, -0.25), right + more(0.25 - 0.2, 0)
    top, bottom = top + more(-0.25, -0.325), bottom + more(0.25, 0.325)
    box, value, _ = by_hand("iou_loss=giou\niou_normalizer=.1\n")
    giou = [left + right, top + bottom, right - left, bottom - top]
    assert box == pytest.approx([0.1 * number for number in giou], rel=1e-5, abs=1e-6)
    assert value == pytest.approx(0.1 * (1 - SHARED / UNION + (ENCLOSING - UNION) / ENCLOSING) + 1.25)


def test_diou_and_ciou_by_hand():
    left, right, top, bottom = edges_by_hand()
    # the distance^2 .0025 over the diagonal^2 .325^2 + .25^2 = .168125, which grows 2 * .325 times half of the width
    # and 2 * .25 times both halves of the height, and falls 2 * .325 times x
    distance, diagonal = 0.0025, 0.168125
    diou = [
        left + right + (2 * 0.05 * diagonal + 2 * 0.325 * distance) / diagonal**2,
        top + bottom,
        right - left + 2 * 0.325 * 0.5 * distance / diagonal**2,
        bottom - top + 2 * 0.25 * distance / diagonal**2,
    ]
    box, value, _ = by_hand("iou_loss=diou\niou_normalizer=.1\n")
    assert box == pytest.approx([0.1 * number for number in diou], rel=1e-5, abs=1e-6)
    assert value == pytest.approx(0.1 * (1 - SHARED / UNION) + 1.25)  # the plain IoU is what is printed
    angle = math.atan(1.5) - math.atan(1)
    aspect = 4 / math.pi**2 * angle**2
    pull = aspect / (1 - SHARED / UNION + aspect) * 8 / math.pi**2 * angle * 0.25
    ciou = [*diou[:2], diou[2] + pull, diou[3] - pull]
    box, value, _ = by_hand("iou_loss=ciou\niou_normalizer=.1\n")
    assert box == pytest.approx([0.1 * number for number in ciou], rel=1e-5, abs=1e-6)
    assert value == pytest.approx(0.1 * (1 - SHARED / UNION) + 1.25)
    limited = by_hand("iou_loss=ciou\niou_normalizer=.1\nmax_delta=.2\n")[0]
    assert limited == pytest.approx([max(-0.2, min(0.2, 0.1 * number)) for number in ciou], abs=1e-6)
    assert limited != pytest.approx(box)


def test_a_rarer_class_counts_more_by_hand():
    left, right, top, bottom = edges_by_hand()
    iou = [left + right, top + bottom, right - left, bottom - top]
    # 40 / 10, at most 2; the boxes' deltas are multiplied before they are limited
    options = "iou_loss=iou\niou_normalizer=1\ncounters_per_class=10,40\nmax_delta=2\n"
    for text, share in ((options, 2), (f"{options}cls_normalizer=.5\n", 1)):
        found = deltas(loss_of(text, **(ONE | {"classes": 2})), torch.zeros(1, 7, 2, 2), TRUTH)[0][
            0, 0, :, 0, 1
        ].tolist()
        assert found[:4] == pytest.approx([max(-2, min(2, 2 * number)) for number in iou], abs=1e-5)
        assert max(abs(number) for number in iou) > 1.5
        assert found[4:] == pytest.approx([2 * 0.5, share * 0.5, -0.5])
    # without counters cls_normalizer does nothing
    assert by_hand("cls_normalizer=.5\n") == by_hand("")


def test_new_coords_and_scale_by_hand():
    # numbers of 0.5 as they are: centre .5 * 2 - .5 = .5, size 4 * .25 * 16 pixels: the same box
    loss = loss_of("new_coords=1\nscale_x_y=2\niou_normalizer=1\n", **ONE)
    found, _, statistics = deltas(loss, torch.full((1, 6, 2, 2), 0.5), TRUTH)
    expected = [1.94 * 0.1, 0, 1.94 * (math.sqrt(0.3) - 0.5), 1.94 * (math.sqrt(0.2) - 0.5), 0.5, 0.5]
    assert statistics["iou"].item() == pytest.approx(SHARED / UNION)
    assert found[0, 0, :, 0, 1].tolist() == pytest.approx(expected, abs=1e-6)
    # sigmoid .7 * 1.2 - .1 = .74 of the cell, so the centre is (.87, .25)
    loss, raw = loss_of("scale_x_y=1.2\niou_normalizer=1\n", **ONE), torch.zeros(1, 6, 2, 2)
    raw[0, 0] = logit(0.7)
    assert deltas(loss, raw, TRUTH)[0][0, 0, 0, 0, 1].item() == pytest.approx(1.94 * (0.6 - 0.74))


# --- the same in plain Python, cell by cell and truth by truth ---


def iou_of(a, b):
    w, h = (
        min(a[i] + a[i + 2] / 2, b[i] + b[i + 2] / 2) - max(a[i] - a[i + 2] / 2, b[i] - b[i + 2] / 2) for i in (0, 1)
    )
    if w <= 0 or h <= 0:
        return 0.0
    return w * h / (a[2] * a[3] + b[2] * b[3] - w * h)


def scalar_mse(raw, truths, anchors, mask, classes, size, adds_up, o):
    """Deltas {(n, a, entry, row, column): value} and cost of one head, with box losses of mse."""
    n, _, rows, columns = raw.shape
    raw = raw.view(n, len(mask), 5 + classes, rows, columns).double().tolist()
    get, cost, count, total_iou = o.get, 0, 0, 0
    normalizer = get("iou_normalizer", 0.75 if adds_up else 1)
    counters = get("counters_per_class", [1] * classes)
    multipliers = [max(counters) / c for c in counters]
    out = {}
    for b in range(n):
        real = [t for t in truths[b].double().tolist() if t[0] >= 0]

        def sig(a, e, j, i, b=b):
            return 1 / (1 + math.exp(-raw[b][a][e][j][i]))

        def box(a, j, i, b=b):
            s = get("scale_x_y", 1)
            x, y = (sig(a, e, j, i) * s - (s - 1) / 2 for e in (0, 1))
            w, h = (math.exp(raw[b][a][e][j][i]) for e in (2, 3))
            w, h = w * anchors[mask[a]][0] / size[0], h * anchors[mask[a]][1] / size[1]
            return [(i + x) / columns, (j + y) / rows, w, h], x, y

        def put_box(t, a, j, i, factor, b=b):
            pred, x, y = box(a, j, i)
            aw, ah = anchors[mask[a]]
            goals = (
                t[1] * columns - i - x,
                t[2] * rows - j - y,
                math.log(t[3] * size[0] / aw),
                math.log(t[4] * size[1] / ah),
            )
            for e in range(4):
                delta = goals[e] - (raw[b][a][e][j][i] if e > 1 else 0)
                delta *= (2 - t[3] * t[4]) * normalizer * factor
                out[b, a, e, j, i] = delta + (out.get((b, a, e, j, i), 0) if adds_up else 0)
            return iou_of(pred, t[1:])

        def put_class(c, a, j, i, b=b):
            eps = get("label_smooth_eps", 0)
            key = b, a, 5 + c, j, i
            if out.get(key):
                out[key] = (1 - eps / 2 - sig(a, 5 + c, j, i)) * multipliers[c]
                return
            for k in range(classes):
                y = (1 - eps) * (k == c) + eps / 2
                out[b, a, 5 + k, j, i] = (y - sig(a, 5 + k, j, i)) * (multipliers[c] if k == c else 1)

        for a in range(len(mask)):
            for j in range(rows):
                for i in range(columns):
                    overlaps = [iou_of(box(a, j, i)[0], t[1:]) for t in real] or [0]
                    best = max(overlaps)
                    key = b, a, 4, j, i
                    out[key] = -get("obj_normalizer", 1) * sig(a, 4, j, i)
                    sure = not adds_up or any(sig(a, 5 + c, j, i) > 0.25 for c in range(classes))
                    if best > get("ignore_thresh", 0.5) and sure:
                        out[key] = 0
                    if best > get("truth_thresh", 1):
                        t = real[overlaps.index(best)]
                        out[key] = get("obj_normalizer", 1) * (1 - sig(a, 4, j, i))
                        put_class(int(t[0]), a, j, i)
                        put_box(t, a, j, i, multipliers[int(t[0])])
        for t in real:
            c, i, j = int(t[0]), int(t[1] * columns), int(t[2] * rows)
            alike = [iou_of([0, 0, *t[3:]], [0, 0, w / size[0], h / size[1]]) for w, h in anchors]
            chosen = [alike.index(max(alike))]
            chosen += [k for k, one in enumerate(alike) if k != chosen[0] and one > get("iou_thresh", 1)]
            for k in chosen:
                if k in mask:
                    a = mask.index(k)
                    total_iou += put_box(t, a, j, i, multipliers[c])
                    out[b, a, 4, j, i] = multipliers[c] * get("obj_normalizer", 1) * (1 - sig(a, 4, j, i))
                    put_class(c, a, j, i)
                    count += 1
        if get("iou_thresh", 1) < 1:
            for a in range(len(mask)):
                for j in range(rows):
                    for i in range(columns):
                        positive = sum(out.get((b, a, 5 + c, j, i), 0) > 0 for c in range(classes))
                        for e in range(4):
                            if positive and (b, a, e, j, i) in out:
                                out[b, a, e, j, i] /= positive
    cost = sum(value**2 for value in out.values())
    return out, cost / n, count, total_iou / max(1, count)


OPTION_SETS = [
    {}, {"ignore_thresh": 0.2}, {"truth_thresh": 0.4, "ignore_thresh": 0.3}, {"iou_thresh": 0.213},
    {"iou_thresh": 0.3, "truth_thresh": 0.5, "label_smooth_eps": 0.1, "scale_x_y": 1.1},
    {"counters_per_class": [30, 10, 40], "obj_normalizer": 0.4, "iou_normalizer": 0.07, "iou_thresh": 0.2},
]  # fmt: skip
ANCHORS = [(10, 14), (23, 27), (37, 58), (30, 12), (60, 40)]


@pytest.mark.parametrize(
    ("program", "options"), [("alexeyab", o) for o in OPTION_SETS] + [("pjreddie", o) for o in OPTION_SETS[:3]]
)
def test_assignment_and_thresholds_are_a_plain_programs(program, options):
    chance = random.Random(0)
    torch.manual_seed(0)
    mask, classes, size = [1, 3, 4], 3, (96, 64)
    raw = torch.randn(4, 3 * 8, 2, 3)
    truths = torch.full((4, 9, 5), -1.0)
    for b, found in enumerate((0, 1, 9, 5)):
        # crowded, so that boxes have several truths; padded in front as well as behind
        for place in sorted(chance.sample(range(9), found)):
            sides = [chance.uniform(0.1, 0.7) for _ in range(2)]
            truths[b, place] = torch.tensor(
                [chance.randrange(3), *(chance.uniform(0.05, 0.95) for _ in range(2)), *sides]
            )
    text = "".join(
        f"{key}={','.join(map(str, value)) if isinstance(value, list) else value}\n" for key, value in options.items()
    )
    flat = ",".join(str(side) for anchor in ANCHORS for side in anchor)
    loss = loss_of(text, "1,3,4", program, size=size, classes=3, anchors=flat, num=5)
    found, value, statistics = deltas(loss, raw, truths)
    expected, cost, count, mean = scalar_mse(raw, truths, ANCHORS, mask, classes, size, program == "alexeyab", options)
    reference = torch.zeros_like(found)
    for key, number in expected.items():
        reference[key] = number
    assert count > 5 and statistics["count"].item() == count and statistics["iou"].item() == pytest.approx(mean, 1e-5)
    torch.testing.assert_close(found, reference, rtol=1e-5, atol=2e-6)
    assert value == pytest.approx(cost, rel=1e-5)


def test_a_box_of_two_truths():
    # two truths in one cell of one anchor, classes 1 and 0: AlexeyAB's adds, Debian's has the last; both are right
    truths = torch.tensor([[[1, 0.8, 0.25, 0.25, 0.25], [0, 0.7, 0.25, 0.25, 0.25]]])
    raw = torch.zeros(1, 7, 2, 2)
    options = {**ONE, "classes": 2}
    small = 2 - 0.0625
    for program, text, x in (
        ("alexeyab", "iou_normalizer=1\n", small * (0.1 - 0.1)),
        ("pjreddie", "", -small * 0.1),
        ("alexeyab", "iou_normalizer=1\niou_thresh=.9\n", 0),  # and takes the mean over its classes
    ):
        found = deltas(loss_of(text, program=program, **options), raw, truths)[0][0, 0, :, 0, 1]
        assert found.tolist() == pytest.approx([x, 0, 0, 0, 0.5, 0.5, 0.5], abs=1e-6)
    truths[0, 1, 1] = 0.8
    for text, share in (("", 1), ("iou_thresh=.9\n", 0.5)):
        found = deltas(loss_of(f"iou_normalizer=1\n{text}", **options), raw, truths)[0][0, 0, :, 0, 1]
        assert found[0].item() == pytest.approx(share * small * 0.2)


def test_only_alexeyabs_ignores_by_class():
    # the second cell's box is right but not 25 % sure of its class; the truth goes to the first cell's
    raw = torch.zeros(1, 6, 2, 2)
    raw[0, 0, 0, 0], raw[0, 0, 0, 1] = 9, -9  # both boxes at the border of the cells
    truth = torch.tensor([[[0, 0.499, 0.25, 0.25, 0.25]]])
    for p, program, expected in ((0.2, "alexeyab", -0.5), (0.3, "alexeyab", 0), (0.2, "pjreddie", 0)):
        raw[0, 5, 0, 1] = logit(p)
        found = deltas(loss_of("ignore_thresh=.7\n", program=program, **ONE), raw, truth)[0]
        assert found[0, 0, 4, 0].tolist() == [0.5, expected]


# --- against other libraries ---


def random_boxes(n, apart=False):
    torch.manual_seed(1)
    true = torch.rand(n, 4, dtype=torch.float64) * 0.3 + 0.2
    near = true + (torch.rand(n, 4, dtype=torch.float64) - 0.5) * 0.15
    if apart:
        near[:, :2] += 1
    return near, true


def corners(boxes):
    return torch.cat([boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2], -1)


def ascent(loss, boxes, true):
    boxes = boxes.clone().requires_grad_()
    return -torch.autograd.grad(loss(corners(boxes), corners(true), reduction="sum", eps=0), boxes)[0]


def test_overlaps_gradients_are_torchvisions_but_for_what_the_program_does():
    ops = torchvision.ops
    for apart in (False, True):
        boxes, true = random_boxes(50, apart)
        sizes = torch.tensor([0, 0, 1, 1])
        if apart:
            iou = 0  # and these have only their own part
        else:
            iou = ascent(lambda a, b, **_: (1 - ops.box_iou(a, b).diagonal()).sum(), boxes, true)
            giou = ascent(ops.generalized_box_iou_loss, boxes, true)
            torch.testing.assert_close(iou_delta(boxes, true), iou * (1 + sizes))
            torch.testing.assert_close(giou_delta(boxes, true), giou * (1 + sizes))
        # the distance's part that the enclosing box's diagonal has, by the centre with the other sign
        by_diagonal = -ascent(
            lambda a, b, **_: (
                (a[:, :2] + a[:, 2:] - b[:, :2] - b[:, 2:]).detach().square().sum(-1)
                / 4
                / diagonal(a, b).detach() ** 2
                * diagonal(a, b)
            ).sum(),
            boxes,
            true,
        )
        diou = ascent(ops.distance_box_iou_loss, boxes, true)
        ciou = ascent(ops.complete_box_iou_loss, boxes, true)
        ours = diou_delta(boxes, true)
        torch.testing.assert_close(ours, diou + sizes * iou - 2 * (1 - sizes) * by_diagonal)
        aspect = (ciou - diou) * boxes[:, 2:].square().sum(-1, keepdim=True)
        if apart:  # the aspect ratio's weight has the product of the negative gaps in its IoU, too
            continue
        torch.testing.assert_close(ciou_delta(boxes, true), ours + aspect, rtol=1e-3, atol=1e-6)


def diagonal(a, b):
    return (torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])).square().sum(-1)


def test_classifier_loss_is_cross_entropy_for_labels():
    torch.manual_seed(0)
    logits, labels = torch.randn(5, 7, requires_grad=True), torch.tensor([0, 6, 3, 3, 1])
    ours, theirs = classifier_loss(logits, labels), F.cross_entropy(logits, labels)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(*(torch.autograd.grad(loss, logits)[0] for loss in (ours, theirs)))


def test_classifier_loss_by_hand():
    # probabilities .75 and .25
    logits = torch.tensor([[math.log(3), 0.0]], requires_grad=True)
    soft = torch.tensor([[0.9, 0.1]])
    loss = classifier_loss(logits, soft)
    assert loss.item() == pytest.approx(-math.log(0.75) - math.log(0.25))
    assert torch.autograd.grad(loss, logits)[0].tolist() == [pytest.approx([-0.15, 0.15])]
    # [cost] adds its squares to the print, and the same deltas
    loss = classifier_loss(logits, torch.tensor([0]), cost_scale=1)
    assert loss.item() == pytest.approx((-math.log(0.75) + 2 * 0.25**2) / 2)
    assert torch.autograd.grad(loss, logits)[0].tolist() == [pytest.approx([-0.5, 0.5])]
    # a class of probability 0, to the last bit
    loss = classifier_loss(torch.tensor([[200.0, 0]], requires_grad=True), torch.tensor([1]))
    assert loss.item() == 200
    assert read_cost_scale(parse("[net]\n[softmax]\n[cost]\ntype=sse\nscale=2\n")) == 2
    assert read_cost_scale(parse("[net]\n[softmax]\n")) is None


# --- as the training uses it ---


def test_several_heads_and_sizes():
    sections = fit(recipe("v4_tiny"), {"size": 64}, 7, 100)
    loss, net = YoloLoss(sections), DarknetNetwork(sections)
    net.layers[net.heads[0] - 1].linear.bias.data.normal_()
    # [28, 28] is like anchor 1, 23,27, which is the second head's; [300, 320] like anchor 5, the first's, pixels
    for pixels in (64, 96):
        sizes = torch.tensor([[28.0, 28], [300, 320]]) / pixels
        truths = torch.cat([torch.tensor([[3.0], [4]]), torch.full((2, 2), 0.4), sizes], 1).expand(2, -1, -1)
        heads = net(torch.rand(2, 3, pixels, pixels))
        value, statistics = loss(heads, truths)
        assert statistics["count"].tolist() == [2, 2]
        single = [deltas_of_head(sections, i, heads[i].detach(), truths) for i in (0, 1)]
        assert value.item() == pytest.approx(sum(one for one, _ in single) / 2)
        # the mean is printed, the deltas are whole
        for gradient, (_, alone) in zip(torch.autograd.grad(value, heads), single, strict=True):
            assert torch.equal(gradient, alone)
    value, _ = loss(net(torch.rand(2, 3, 64, 64)), truths)
    value.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def deltas_of_head(sections, index, raw, truths):
    """Loss and gradients of one head by itself."""
    loss = YoloLoss(sections)
    for name in ("anchors", "mask", "multipliers"):
        setattr(loss, f"{name}0", getattr(loss, f"{name}{index}"))
    loss.heads = [loss.heads[index]]
    raw = raw.clone().requires_grad_()
    value, _ = loss([raw], truths)
    return value.item(), torch.autograd.grad(value, raw)[0]


@pytest.mark.parametrize("program", ["alexeyab", "pjreddie"])
def test_photos_without_faces_and_boxes_without_size(program):
    torch.manual_seed(0)
    loss, raw = loss_of("truth_thresh=.5\n", program=program), torch.randn(2, 21, 2, 2)
    empty, value, statistics = deltas(loss, raw, torch.zeros(2, 0, 5))
    # only the objectness falls
    assert torch.equal(empty[:, :, 4], -raw.view(2, 3, 7, 2, 2)[:, :, 4].sigmoid())
    empty[:, :, 4] = 0
    assert not empty.any() and math.isfinite(value)
    assert all(tensor.isfinite().all() for tensor in statistics.values()) and statistics["count"].item() == 0
    nothing = [[-1, 0.5, 0.5, 0.5, 0.5], [0, 0.5, 0.5, 0, 0.5], [0, math.nan, 0.5, 0.1, 0.1], [2, 0.5, 0.5, 0.5, 0.5]]
    again, same, _ = deltas(loss, raw, torch.tensor([nothing] * 2))
    again[:, :, 4] = 0
    assert not again.any() and same == value


@pytest.mark.parametrize("kind", ["mse", "iou", "giou", "diou", "ciou"])
def test_degenerate_boxes_give_finite_deltas(kind):
    for size in (-200, 60, 200, 1e4):
        raw = torch.zeros(1, 6, 2, 2)
        raw[:, 2] = size
        raw[:, 3] = -size
        found, value, statistics = deltas(loss_of(f"iou_loss={kind}\n", **ONE), raw, TRUTH)
        assert found.isfinite().all() and math.isfinite(value)
        assert all(tensor.isfinite().all() for tensor in statistics.values())
    # a centre on the very edge of the photo is in the last cell
    on_edge = torch.tensor([[[0, 1.0, 1.0, 0.2, 0.2]]])
    found = deltas(loss_of(f"iou_loss={kind}\n", **ONE), torch.zeros(1, 6, 2, 2), on_edge)[0]
    assert found[0, 0, 4].tolist() == [[-0.5, -0.5], [-0.5, 0.5]]


def test_mixed_precision_is_computed_in_float32():
    torch.manual_seed(0)
    loss, truths = loss_of("iou_loss=ciou\niou_thresh=.2\ntruth_thresh=.6\n"), TRUTH.expand(2, -1, -1)
    raw = torch.randn(2, 21, 2, 2).bfloat16()
    wide, value, _ = deltas(loss, raw.float(), truths)
    half = raw.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        found, statistics = loss([half], truths)
        soft = classifier_loss(raw[:, :, 0, 0], torch.tensor([1, 2]))
    assert found.dtype == soft.dtype == torch.float32 and found.item() == value
    assert statistics["iou"].dtype == torch.float32
    (gradient,) = torch.autograd.grad(1024 * found, half)
    assert gradient.dtype == torch.bfloat16
    assert torch.equal(gradient.view_as(wide), (-1024 * wide / 2).bfloat16())


def test_gradients_follow_a_loss_that_is_scaled():
    torch.manual_seed(0)
    raw, loss = torch.randn(2, 21, 2, 2), loss_of("delta_normalizer=3\n")
    tripled = deltas(loss, raw, TRUTH.expand(2, -1, -1))[0]
    plain = deltas(loss_of(), raw, TRUTH.expand(2, -1, -1))[0]
    torch.testing.assert_close(tripled, 3 * plain)


def test_a_head_learns_a_face():
    torch.manual_seed(0)
    for kind in ("mse", "ciou"):
        loss = loss_of(f"iou_loss={kind}\niou_normalizer={1 if kind == 'mse' else 0.07}\n")
        raw = torch.zeros(1, 21, 2, 2, requires_grad=True)
        optimizer = torch.optim.SGD([raw], 0.1)
        for _ in range(300):
            optimizer.zero_grad()
            value, statistics = loss([raw], TRUTH)
            value.backward()
            optimizer.step()
        assert statistics["iou"].item() > 0.9 and statistics["obj"].item() > 0.9 and statistics["no_obj"] < 0.2


def test_the_recipes_losses_are_built():
    for name in ("v3_tiny", "v4_tiny", "v4"):
        assert len(YoloLoss(recipe(name)).heads) == (3 if name == "v4" else 2)
    YoloLoss(recipe("v3_tiny"), "pjreddie")


@pytest.mark.parametrize(
    ("options", "program", "message"),
    [
        ("focal_loss=1\n", "alexeyab", "focal_loss=1 is not supported with darknet.engine=torch: set focal_loss=0"),
        ("objectness_smooth=1\n", "pjreddie", "objectness_smooth=1 .* set objectness_smooth=0"),
        ("objectness_smooth=1\ntruth_thresh=.9\n", "alexeyab", ".* are not built together: set truth_thresh=1"),
        ("iou_thresh_kind=giou\n", "alexeyab", "iou_thresh_kind=giou is not .* set iou_thresh_kind=iou"),
        ("map=a.map\n", "pjreddie", "map=a.map is not supported .*: delete it"),
        ("iou_loss=eiou\n", "alexeyab", "iou_loss=eiou is not one of mse, iou, giou, diou, ciou"),
        ("iou_loss=ciou\n", "pjreddie", "iou_loss=ciou .* Debian's darknet of 2018, which does not know it: set"),
        ("scale_x_y=1.05\n", "pjreddie", "scale_x_y=1.05 .* set scale_x_y=1"),
        ("max_delta=5\n", "pjreddie", "max_delta=5 .* delete it"),
        ("ignore_thresh=a\n", "alexeyab", "ignore_thresh=a is no list of numbers"),
        ("counters_per_class=1,2,3\n", "alexeyab", "counters_per_class= has 3 numbers, not 2"),
    ],
)  # fmt: skip
def test_what_is_not_built_is_named(options, program, message):
    with pytest.raises(InputError, match=rf"a.cfg:\d+: \[yolo\]: {message}") as error:
        loss_of(options, program=program)
    assert "\n" not in str(error.value)


def test_what_is_not_built_of_net_and_cost_is_named():
    loss_of("scale_x_y=1.0\n", program="pjreddie")
    with pytest.raises(InputError, match=r"a.cfg:1: \[net\]: adversarial_lr=0.1 is not supported"):
        loss_of(net="adversarial_lr=0.1\n")
    with pytest.raises(InputError, match=r"cfg:3: \[cost\]: type=smooth is not supported .* set type=sse"):
        read_cost_scale(parse("[net]\n[softmax]\n[cost]\ntype=smooth\n"))
    with pytest.raises(InputError, match=r"\[net\]: is followed by no \[yolo\]"):
        YoloLoss(recipe("classifier_small"))
