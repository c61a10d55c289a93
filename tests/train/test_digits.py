"""The digits: a fair split, a network of the promised size, training that repeats."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tvmcomp.frontend import load_model
from tvmcomp.train.digits import (
    Digits,
    digit_scores,
    digits_model,
    digits_net,
    read_digits,
    save_program,
    train_digits,
)


@pytest.fixture(scope="module")
def digits() -> Digits:
    return read_digits(seed=3)


def test_split_is_70_to_30_in_every_class_and_disjoint(digits: Digits) -> None:
    assert digits.train_images.shape == (1257, 1, 8, 8)
    assert digits.test_images.shape == (540, 1, 8, 8)
    assert digits.train_images.dtype == np.float32
    assert (digits.train_images.min(), digits.train_images.max()) == (0, 1)
    train, test = np.bincount(digits.train_labels), np.bincount(digits.test_labels)
    assert np.abs(test / (train + test) - 0.3).max() < 0.01
    # scikit-learn's set holds no digit twice, so no picture may be in both parts.
    seen = {image.tobytes() for image in digits.train_images}
    assert not any(image.tobytes() in seen for image in digits.test_images)


def test_split_follows_the_seed(digits: Digits) -> None:
    np.testing.assert_array_equal(read_digits(seed=3).test_images, digits.test_images)
    assert not np.array_equal(read_digits(seed=4).test_images, digits.test_images)


def test_network_has_26k_parameters() -> None:
    assert sum(weight.numel() for weight in digits_net().parameters()) == 25_978


def test_two_epochs_learn_and_repeat(digits: Digits) -> None:
    seen: list[tuple[int, int | None]] = []
    torch.manual_seed(11)
    before = torch.get_rng_state()
    net = train_digits(digits, epochs=2, seed=5, progress=lambda *step: seen.append(step))
    assert seen == [(1, 2), (2, 2)]
    assert torch.equal(torch.get_rng_state(), before)
    assert not net.training
    scores = digit_scores(net, digits.test_images)
    assert np.mean(scores.argmax(axis=1) == digits.test_labels) > 0.9
    again = digit_scores(train_digits(digits, epochs=2, seed=5), digits.test_images)
    np.testing.assert_array_equal(again, scores)
    other = digit_scores(train_digits(digits, epochs=1, seed=6), digits.test_images)
    assert not np.array_equal(other, scores)


def test_module_and_saved_program_import_alike(tmp_path: Path) -> None:
    net = digits_net().eval()
    save_program(net, tmp_path / "net.pt2")
    direct, saved = digits_model(net), load_model(tmp_path / "net.pt2")
    assert direct.signature == saved.signature
    assert [t.shape for t in direct.signature.inputs.values()] == [(1, 1, 8, 8)]
    assert direct.params.keys() == saved.params.keys()
    for name, value in direct.params.items():
        np.testing.assert_array_equal(value, saved.params[name])
