"""The smoke test: what passes, what fails, and the recipe it has."""

import dataclasses

import pytest

from ssd_tf.command import UserError
from ssd_tf.config import presets
from ssd_tf.config import run as config
from ssd_tf.config import training as recipe
from ssd_tf.datasets import catalog, records
from ssd_tf.evaluation import evaluate
from ssd_tf.training import overfit

GOOD = dict.fromkeys(overfit.AP_KEYS, 1.0)


def settings_of(shapes_data, **training):
    names = tuple(catalog.class_names(shapes_data))
    params = dataclasses.replace(
        presets.SSD_128_MOBILENET_V2, num_classes=len(names) + 1
    )
    return config.Config(params, names, recipe.TrainParams(**training))


@pytest.mark.parametrize(
    ("loss", "metrics", "passed"),
    [
        (0.99, GOOD, True),
        (1.01, GOOD, False),
        (0.5, {**GOOD, "COCO/AP50": 0.99}, False),
        (0.5, dict.fromkeys(overfit.AP_KEYS), False),
    ],
)
def test_loss_and_every_protocol_decide(loss, metrics, passed):
    verdict = overfit.Verdict(10.0, loss, metrics, 25, 1.0)
    assert verdict.passed == passed


def test_its_recipe_varies_nothing_and_decays_nothing():
    run = recipe.TrainParams(
        batch_size=32,
        ema_decay=0.999,
        gradient_accumulation_steps=4,
        trainable_scopes=("extra1",),
        precision="mixed_bfloat16",
        seed=3,
        loss=recipe.LossParams(alpha=2.0),
    )
    own = overfit.recipe_of(run)
    assert own.batch_size == 8
    assert own.augmentation == recipe.AUGMENTATIONS["none"]
    assert own.weight_decay == own.ema_decay == 0
    assert own.gradient_accumulation_steps == 1
    assert own.trainable_scopes == ()
    # These are tried as the run has them.
    assert own.precision == run.precision
    assert own.seed == run.seed and own.loss == run.loss


@pytest.mark.slow
def test_a_small_net_learns_its_batch_by_heart(shapes_data, capsys):
    settings = settings_of(shapes_data, batch_size=2)
    data = records.read(shapes_data, "train")
    verdict = overfit.overfit(settings, data, 48)
    assert verdict.passed and verdict.steps % overfit.EVAL_INTERVAL == 0
    assert verdict.loss < 0.1 * verdict.first_loss
    assert min(verdict.metrics.values()) == pytest.approx(1.0)
    assert "one batch overfitted: yes" in capsys.readouterr().out


@pytest.mark.slow
def test_a_net_that_does_not_learn_fails_with_reasons(
    shapes_data, capsys, monkeypatch
):
    """One step is not enough; a batch is no larger than the data."""
    sizes = []
    real = evaluate.evaluate

    def counted(*args, **options):
        metrics = real(*args, **options)
        sizes.append(metrics["num_images"])
        return metrics

    monkeypatch.setattr(evaluate, "evaluate", counted)
    settings = settings_of(shapes_data)
    data = records.read(shapes_data, "train").take(2)
    with pytest.raises(
        UserError, match="overfit its batch; likely reasons: .*--seed"
    ):
        overfit.overfit(settings, data, 2, max_steps=1)
    output = capsys.readouterr().out
    assert "one batch overfitted: NO" in output
    assert "AP_VOC07/mAP, own batch" in output
    assert sizes == [2]


def test_images_without_boxes_are_refused(shapes_data, without_boxes):
    settings = settings_of(shapes_data, batch_size=2)
    with pytest.raises(UserError, match="no box in the first 2 images"):
        overfit.overfit(settings, without_boxes, 48)
