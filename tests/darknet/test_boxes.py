"""Overlaps against torchvision and worked by hand, and boxes that come back from their encoding."""

import numpy as np
import pytest
import torch
from torchvision.ops import (
    box_convert,
    box_iou,
    complete_box_iou_loss,
    distance_box_iou_loss,
    generalized_box_iou_loss,
)

from fer.darknet.torch_engine.boxes import OVERLAPS, ciou, decode, diou, encode, giou, iou
from fer.darknet.torch_engine.inference import suppress
from fer.data.boxes import iou as numpy_iou

TORCHVISION = {"giou": generalized_box_iou_loss, "diou": distance_box_iou_loss, "ciou": complete_box_iou_loss}


def random_boxes(n, seed=0):
    """Boxes over one another, apart, and within one another, of hundreds of pixels: torchvision adds 1e-7 to areas."""
    generator = torch.Generator().manual_seed(seed)
    centres, sizes = (torch.rand(n, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    return torch.cat([200 + 300 * centres, 5 + 300 * sizes], dim=1)


def corners(boxes):
    return box_convert(boxes, "cxcywh", "xyxy")


def test_overlaps_worked_by_hand():
    # 4 x 2 at 0..4, 0..2 and 2 x 4 at 3..5, 0..4: shared 1 x 2, union 14, enclosing 5 x 4, centres (2, 1) and (4, 2)
    first, second = torch.tensor([2.0, 1, 4, 2]), torch.tensor([4.0, 2, 2, 4])
    assert iou(first, second).item() == pytest.approx(2 / 14)
    assert giou(first, second).item() == pytest.approx(2 / 14 - 6 / 20)
    assert diou(first, second).item() == pytest.approx(2 / 14 - 5 / 41)
    aspect = 4 / np.pi**2 * (np.arctan(2) - np.arctan(0.5)) ** 2
    weight = aspect / (1 - 2 / 14 + aspect)
    assert ciou(first, second).item() == pytest.approx(2 / 14 - 5 / 41 - weight * aspect)


@pytest.mark.parametrize("name", TORCHVISION)
def test_overlaps_and_gradients_are_torchvisions(name):
    first, second = random_boxes(500).requires_grad_(), random_boxes(500, seed=1)
    ours = OVERLAPS[name](first, second)
    theirs = 1 - TORCHVISION[name](corners(first), corners(second))
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
    (our_slope,) = torch.autograd.grad(ours.sum(), first)
    (their_slope,) = torch.autograd.grad(theirs.sum(), first)
    torch.testing.assert_close(our_slope, their_slope, rtol=1e-5, atol=1e-7)


def test_iou_is_torchvisions_and_that_of_the_scores():
    first, second = random_boxes(30), random_boxes(40, seed=1)
    ours = iou(first[:, None], second)
    torch.testing.assert_close(ours, box_iou(corners(first), corners(second)))
    upper_left = [box_convert(boxes, "cxcywh", "xywh").numpy() for boxes in (first, second)]
    assert np.allclose(ours, numpy_iou(upper_left[0][:, None], upper_left[1]))


@pytest.mark.parametrize("name", OVERLAPS)
def test_overlaps_are_symmetric_and_know_no_unit(name):
    overlap = OVERLAPS[name]
    first, second = random_boxes(500), random_boxes(500, seed=1)
    found = overlap(first, second)
    torch.testing.assert_close(overlap(second, first), found)
    torch.testing.assert_close(overlap(first / 1e4, second / 1e4), found)
    torch.testing.assert_close(overlap(first, first), torch.ones(500, dtype=torch.float64))
    assert (found <= iou(first, second) + 1e-12).all() and (found > -2).all() and (found <= 1).all()


@pytest.mark.parametrize("name", OVERLAPS)
def test_boxes_without_a_size_have_finite_numbers(name):
    empty = torch.tensor([[5.0, 5, 0, 0], [5, 5, 2, 0]], requires_grad=True)
    found = OVERLAPS[name](empty, torch.tensor([[5.0, 5, 0, 0], [9, 9, 0, 3]]))
    assert found.isfinite().all() and (iou(empty, empty) == 0).all()
    faces = torch.tensor([[5.0, 5, 2, 2], [1, 1, 1, 1]], requires_grad=True)
    for other in (faces.detach(), faces.detach() + 7):
        (slope,) = torch.autograd.grad(OVERLAPS[name](faces, other).sum(), faces)
        assert slope.isfinite().all()


def test_gradients_are_those_of_float64():
    first, second = random_boxes(50).requires_grad_(), random_boxes(50, seed=1)
    for overlap in (iou, giou, diou):  # of ciou the weight is held constant
        assert torch.autograd.gradcheck(lambda boxes, overlap=overlap: overlap(boxes, second), first)


@pytest.mark.parametrize(("scale", "new_coords"), [(1, False), (1.05, False), (1.2, False), (2, True)])
def test_boxes_come_back_from_their_encoding(scale, new_coords):
    generator = torch.Generator().manual_seed(0)
    cells = torch.randint(0, 13, (300, 2), generator=generator).double()
    inside = 0.01 + 0.98 * torch.rand(300, 2, generator=generator, dtype=torch.float64)
    sizes = 0.1 + 13 * torch.rand(300, 2, generator=generator, dtype=torch.float64)
    anchors = 0.3 + 5 * torch.rand(300, 2, generator=generator, dtype=torch.float64)
    boxes = torch.cat([cells + inside, sizes], dim=1)
    numbers = encode(boxes, cells, anchors, scale, new_coords)
    torch.testing.assert_close(decode(numbers, cells, anchors, scale, new_coords), boxes)
    torch.testing.assert_close(encode(boxes, cells, anchors, scale, new_coords), numbers)


def test_encoding_worked_by_hand():
    box, cell, anchor = torch.tensor([3.75, 2.5, 4, 1]), torch.tensor([3.0, 2]), torch.tensor([2.0, 1])
    assert encode(box, cell, anchor).tolist() == pytest.approx([np.log(3), 0, np.log(2), 0])
    # (.75 + .5) / 2, (.5 + .5) / 2; 4 * s^2 * 2 = 4
    expected = [0.625, 0.5, np.sqrt(0.5), 0.5]
    assert encode(box, cell, anchor, 2, new_coords=True).tolist() == pytest.approx(expected)
    # a stretched sigmoid reaches over the cell's edge, a plain one does not
    edge = torch.tensor([3.0, 2.5, 4, 1])
    assert not encode(edge, cell, anchor).isfinite().all() and encode(edge, cell, anchor, 1.05).isfinite().all()


def test_suppression_keeps_what_it_kept():
    generator = torch.Generator().manual_seed(0)
    boxes = random_boxes(400)
    boxes = torch.cat([corners(boxes)[:, :2], boxes[:, 2:]], 1).float()
    sure = torch.rand(400, generator=generator)
    kept = suppress(boxes, sure)
    assert 10 < len(kept) < 400 and torch.equal(sure[kept], sure[kept].sort(descending=True).values)
    assert suppress(boxes[kept], sure[kept]).tolist() == list(range(len(kept)))
    # no two that stay overlap, and what goes overlaps a surer one that stays
    overlaps = box_iou(box_convert(boxes, "xywh", "xyxy"), box_convert(boxes[kept], "xywh", "xyxy"))
    assert (overlaps[kept].fill_diagonal_(0) <= 0.45).all()
    gone = [at for at in range(400) if at not in set(kept.tolist())]
    assert all(((overlaps[at] > 0.45) & (sure[kept] > sure[at])).any() for at in gone)
