"""The page that tells how the convolutional networks' training went."""

from itertools import zip_longest

from matplotlib.figure import Figure

from components.train_encoder.material import Material
from needledrop.encoders.training_run import Epoch
from needledrop.page import Page


def curves_page(
    material: Material,
    tried: list[Epoch],
    best: Epoch,
    min_epochs: int,
    histories: list[list[Epoch]],
) -> Page:
    """Loss and score by epoch, as figures and as a table.

    Args:
        material: what was learned from.
        tried: the trial network's epochs.
        best: the one of them that was kept.
        min_epochs: the first that could be.
        histories: epochs of the networks that were kept, in their order.
    """
    page = Page("Training of the convolutional networks", lead=f"{material.summary()}.")
    page.sentence(
        f"A trial network learned from the training songs for {len(tried)} epochs; from epoch "
        f"{min_epochs} on, it did best on the validation songs after {best.number + 1}: mAP@500 "
        f"{best.validation_score:.4f}. {len(histories)} networks then learned from all of these "
        "songs for as many epochs; what they predict is averaged."
    )
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    losses, scores = figure.subplots(1, 2)
    names = ["trial network", *(f"network {n}" for n in range(1, len(histories) + 1))]
    for name, history in zip(names, [tried, *histories], strict=True):
        numbers = [epoch.number + 1 for epoch in history]
        losses.plot(numbers, [epoch.loss for epoch in history], label=name)
    scores.plot(
        [epoch.number + 1 for epoch in tried], [epoch.validation_score or 0.0 for epoch in tried]
    )
    scores.plot(best.number + 1, best.validation_score, "o", color="#1c2330", markersize=4)
    losses.set(xlabel="epoch", ylabel="training loss", ylim=(0, None))
    losses.legend(frameon=False)
    scores.set(xlabel="epoch of the trial network", ylabel="validation mAP@500", ylim=(0, None))
    page.plot(
        figure, "Loss by epoch, and the trial network's validation score; the dot marks its best."
    )
    page.table(
        ["epoch", "validation mAP@500", *(f"loss, {name}" for name in names)],
        [
            [number, *map(_shown, [epochs[0] and epochs[0].validation_score, *map(_loss, epochs)])]
            for number, epochs in enumerate(zip_longest(tried, *histories), start=1)
        ],
    )
    return page


def _loss(epoch: Epoch | None) -> float | None:
    return epoch and epoch.loss


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def about_stretch(stretch: float) -> str:
    """Say what predicted factors are multiplied by, and what for."""
    return (
        f"Predicted factors are multiplied by {stretch:.3f}: with that, validation songs, known "
        "from their sound alone, get the share of listeners' lists that they have of the plays."
    )
