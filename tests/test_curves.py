"""Promises of what TensorBoard shows of a training."""

from __future__ import annotations

import numpy as np
import torch

from petct_training.curves import EpochOf, LesionPictures, LossAndRate, lesion_picture

RED, GREEN, YELLOW = (1, 0, 0), (0, 1, 0), (0.5, 0.5, 0)


def test_found_missed_and_false_lesions_have_their_own_colours_and_the_head_is_at_the_top():
    pet, label, prediction = (torch.zeros(4, 3, 5) for _ in range(3))
    label[0, 1, 0] = label[1, 2, 0] = 1
    prediction[0, 0, 0] = prediction[3, 0, 4] = 1
    picture = lesion_picture(pet, label, prediction, black=10)
    assert picture.shape == (3, 5, 4)
    # The last slice is the first row.
    assert tuple(picture[:, 4, 0]) == YELLOW
    assert tuple(picture[:, 4, 1]) == GREEN
    assert tuple(picture[:, 0, 3]) == RED


def test_the_pet_is_darker_the_higher_its_maximum_along_y():
    pet = torch.from_numpy(np.random.default_rng(0).uniform(-2, 14, (4, 3, 5)))
    none = torch.zeros(4, 3, 5)
    picture = lesion_picture(pet, none, none, black=10)
    expected = 1 - np.clip(pet.numpy().max(axis=1).T[::-1] / 10, 0, 1)
    for channel in picture:
        np.testing.assert_allclose(channel, expected, atol=1e-6)


def test_a_picture_is_drawn_in_suv(tmp_path):
    scheduler = torch.optim.lr_scheduler.ConstantLR(torch.optim.SGD([torch.zeros(1)], lr=1))
    handler = LesionPictures(tmp_path, scheduler, pet_normalised=-1.5, pet_std=2, picture_suv=8)
    normalised = torch.full((2, 1, 1, 1), 0.5)
    study = {"image": normalised, "label": torch.zeros(1, 1, 1, 1), "pred": torch.zeros(1, 1, 1, 1)}
    # 0.5 is two standard deviations above white, 4 of 8 SUV.
    assert handler.draw([study]).tolist() == [[[[0.5]]] * 3]


def test_loss_and_learning_rate_are_those_of_the_step():
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.25)
    assert LossAndRate(optimizer)([{"loss": 2.0}, {"loss": 2.0}]) == {"training_loss": 2.0, "learning_rate": 0.25}


def test_a_validation_is_drawn_at_the_number_of_epochs_trained():
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.25)
    scheduler = torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=5)
    for _ in range(3):
        optimizer.step()
        scheduler.step()
    assert EpochOf(scheduler)(1) == 3
