"""The settings of training: augmentation, loss, optimizer, schedule, start.

Defaults are those of the paper and of ssd_pascal.py; the sources are those of
`ssd_tf.config.net`. `ssd_tf.config.run` stores the settings in config.json.
"""

import dataclasses
import functools
import sys

from ssd_tf.command.settings import setting
from ssd_tf.config import data
from ssd_tf.config.presets import NetOptions

_augmentation = functools.partial(setting, section="augmentation")
_loss = functools.partial(setting, section="loss")
_net = functools.partial(setting, section="net")
_optimizer = functools.partial(setting, section="optimizer")
_schedule = functools.partial(setting, section="schedule")
_weights = functools.partial(setting, section="start")
_run = functools.partial(setting, section="run")
_probability = functools.partial(_augmentation, low=0, high=1)


def _is_range(values: tuple[float, float], most: float) -> bool:
    return 0 < values[0] <= values[1] <= most


_range = functools.partial(
    _augmentation,
    is_valid=lambda values: _is_range(values, sys.float_info.max),
    expected="the least and the largest, separated by a comma",
)


@dataclasses.dataclass(frozen=True)
class AugmentParams:
    """Augmentation of training images; defaults of ssd_pascal.py.

    Names are Caffe's (DistortionParameter, ExpansionParameter). Only
    `random_order_prob` means something else here: Caffe's shuffles channels.
    An operation of probability 0 is left out of the graph.
    """

    brightness_prob: float = _probability(
        0.5, "Probability of changing the brightness."
    )
    brightness_delta: float = _augmentation(
        32.0, "Largest change of brightness, in levels of 255.", low=0
    )
    contrast_prob: float = _probability(
        0.5, "Probability of changing the contrast."
    )
    contrast_range: tuple[float, float] = _range(
        (0.5, 1.5), "Least and largest factor of contrast."
    )
    saturation_prob: float = _probability(
        0.5, "Probability of changing the saturation."
    )
    saturation_range: tuple[float, float] = _range(
        (0.5, 1.5), "Least and largest factor of saturation."
    )
    hue_prob: float = _probability(0.5, "Probability of changing the hue.")
    # OpenCV's circle of hues.
    hue_delta: float = _augmentation(
        18.0, "Largest turn of the hue, in steps of 2 degrees.", low=0, high=90
    )
    # 0.5 is a constant in im_transforms.cpp.
    random_order_prob: float = _probability(
        0.5, "Probability that contrast changes last, not after brightness."
    )
    expand_prob: float = _probability(
        0.5,
        "Probability of zooming out: the image is placed on a larger canvas of "
        "the mean colour.",
    )
    max_expand_ratio: float = _augmentation(
        4.0,
        "Largest side of the canvas of --expand_prob, in sides of the image.",
        low=1,
    )
    crop_prob: float = _probability(
        1.0,
        "Probability of cropping; the whole image is one of the possible "
        "crops.",
    )
    crop_overlaps: tuple[float, ...] = _augmentation(
        (0.1, 0.3, 0.5, 0.7, 0.9, 0.0),
        "Least IoUs of a crop with any box, of which one is drawn at random.",
        low=0,
        high=1,
        is_valid=bool,
        expected="numbers from 0 to 1, separated by commas",
    )
    crop_scale: tuple[float, float] = _augmentation(
        (0.3, 1.0),
        "Least and largest square root of a crop's share of the area.",
        is_valid=lambda values: _is_range(values, 1.0),
        expected=(
            "the least and the largest, above 0 and up to 1, separated by a "
            "comma"
        ),
    )
    crop_aspect_ratio: tuple[float, float] = _range(
        (0.5, 2.0), "Least and largest ratio of a crop's width to its height."
    )
    crop_trials: int = _augmentation(
        50, "Number of random crops that are tried for each overlap.", low=1
    )
    flip_prob: float = _probability(0.5, "Probability of mirroring.")
    random_interpolation: bool = _augmentation(
        True,
        "Resize with one of five kernels at random; otherwise bilinear, as in "
        "evaluation.",
    )


AUGMENTATIONS = {
    "ssd": AugmentParams(),
    "light": AugmentParams(
        hue_prob=0.0, expand_prob=0.0, random_interpolation=False
    ),
    "none": AugmentParams(
        brightness_prob=0.0,
        contrast_prob=0.0,
        saturation_prob=0.0,
        hue_prob=0.0,
        random_order_prob=0.0,
        expand_prob=0.0,
        crop_prob=0.0,
        flip_prob=0.0,
        random_interpolation=False,
    ),
}


@dataclasses.dataclass(frozen=True)
class LossParams:
    """Arguments of `losses.ssd_losses`, and the matching with anchors."""

    match_threshold: float = _loss(
        0.5, "IoU from which an anchor is positive.", low=0, high=1
    )
    # Paper, 2.2; Caffe.
    force_match: bool = _loss(
        True, "Give every box its best free anchor, whatever their IoU."
    )
    # Paper, 2.2.
    negative_ratio: float = _loss(
        3.0, "Number of mined negatives per positive.", low=0
    )
    # Paper, 2.2.
    alpha: float = _loss(
        1.0, "Weight of the localisation loss.", low=0, flag="loss_alpha"
    )
    label_smoothing: float = _loss(
        0.0,
        "Share of the class target that is spread over all classes.",
        low=0,
        high=1,
    )
    mining: str = _loss(
        "image",
        "Mine hard negatives per image (paper, Caffe) or over the batch "
        "(SSD-TensorFlow).",
        choices=("image", "batch"),
    )
    normalizer: str = _loss(
        "positives",
        "Divide the loss by the number of positives (paper, Caffe) or by the "
        "batch size (SSD-TensorFlow).",
        choices=("positives", "batch_size"),
    )
    min_negatives: int = _loss(
        3, "Least number of mined negatives per image.", low=0
    )


def _are_boundaries(values: tuple[float, ...]) -> bool:
    ascending = list(values) == sorted({*values})
    return bool(values) and ascending and 0 < values[0] and values[-1] < 1


def _stripped(scopes: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(scope.strip().strip("/") for scope in scopes)


_scopes = functools.partial(
    setting,
    convert=_stripped,
    is_valid=all,
    expected="scopes such as ssd_300_vgg/conv6, separated by commas",
)


@dataclasses.dataclass(frozen=True)
class TrainParams:
    """The training recipe; defaults of ssd_pascal.py where it has one."""

    batch_size: int = _optimizer(
        32, "Number of images per step, over all devices.", low=1
    )
    max_number_of_steps: int = _schedule(
        120_000, "Number of training steps.", low=1
    )
    optimizer: str = _optimizer(
        "momentum",
        "Name of the optimizer.",
        choices=(
            "adadelta",
            "adagrad",
            "adam",
            "adamw",
            "ftrl",
            "momentum",
            "rmsprop",
            "sgd",
        ),
    )
    momentum: float = _optimizer(
        0.9, "Momentum of --optimizer=momentum.", low=0, high=1
    )
    # The port has 1.0, with which steps are 479 times smaller.
    opt_epsilon: float = _optimizer(
        1e-7, "Epsilon of adadelta, adagrad, adam, adamw and rmsprop.", low=0
    )
    adam_beta1: float = _optimizer(
        0.9, "Decay of the first moment of adam and adamw.", low=0, high=1
    )
    adam_beta2: float = _optimizer(
        0.999, "Decay of the second moment of adam and adamw.", low=0, high=1
    )
    rmsprop_decay: float = _optimizer(
        0.9, "Decay of the squared gradients of rmsprop.", low=0, high=1
    )
    rmsprop_momentum: float = _optimizer(
        0.9, "Momentum of rmsprop.", low=0, high=1
    )
    adadelta_rho: float = _optimizer(
        0.95, "Decay of the averages of adadelta.", low=0, high=1
    )
    # lr_mult of biases in ssd_pascal.py.
    bias_learning_rate_multiplier: float = _optimizer(
        2.0, "Learning rate of biases, relative to other weights.", low=0
    )
    clip_gradient_norm: float = _optimizer(
        0.0,
        "Global norm above which gradients are scaled down; 0: never.",
        low=0,
    )
    # iter_size of Caffe.
    gradient_accumulation_steps: int = _optimizer(
        1,
        "Number of parts of a batch that are computed one after another, to "
        "save memory.",
        low=1,
    )
    ema_decay: float = _optimizer(
        0.0,
        "Decay of a moving average of the weights that evaluation and export "
        "use; 0: none.",
        low=0,
        high=1,
    )
    learning_rate: float = _schedule(
        1e-3, "Learning rate after the warm-up.", low=1e-12
    )
    learning_rate_decay_type: str = _schedule(
        "step",
        "Shape of the learning rate's decay.",
        choices=("step", "cosine", "exponential", "polynomial", "fixed"),
    )
    learning_rate_decay_factor: float = _schedule(
        0.1, "Factor of the step and exponential decay.", low=0
    )
    # ssd_pascal.py: steps 80,000 and 100,000 of 120,000.
    decay_boundaries: tuple[float, ...] = _schedule(
        (2 / 3, 5 / 6),
        "Shares of all steps after which the step decay applies its factor.",
        is_valid=_are_boundaries,
        expected=(
            "ascending shares of all steps, above 0 and below 1, separated by "
            "commas"
        ),
    )
    # The port's.
    num_epochs_per_decay: float = _schedule(
        2.0, "Epochs between two factors of the exponential decay.", low=0
    )
    end_learning_rate: float = _schedule(
        0.0, "Last learning rate of the cosine and polynomial decay.", low=0
    )
    polynomial_power: float = _schedule(
        1.0, "Exponent of the polynomial decay; 1 is linear.", low=0
    )
    warmup_steps: int = _schedule(
        500, "Steps of a linear rise to the learning rate.", low=0
    )
    weight_decay: float = _optimizer(
        5e-4, "L2 weight decay, of convolution kernels only.", low=0
    )
    augmentation: AugmentParams = _augmentation(
        AUGMENTATIONS["ssd"],
        "Named augmentation: ssd (the paper's), light (without zoom-out, hue "
        "and random interpolation) or none; the other flags change single "
        "values.",
        presets=AUGMENTATIONS,
    )
    # False in Caffe's training on VOC.
    ignore_difficult: bool = _loss(
        False, "Ignore boxes marked difficult instead of training on them."
    )
    seed: int = _run(
        0, "Seed of initial weights, order and augmentation.", low=0
    )
    precision: str = _net(
        "float32",
        "Keras dtype policy of the net; heads and losses are always float32.",
        choices=("float32", "mixed_bfloat16", "mixed_float16"),
    )
    jit_compile: str = _run(
        "auto",
        "Compile the whole step with XLA; auto: on GPUs.",
        choices=("auto", "on", "off"),
    )
    save_interval_steps: int = _run(
        1000, "Steps between two checkpoints.", low=1
    )
    log_every_n_steps: int = _run(10, "Steps between two log entries.", low=1)
    max_to_keep: int = _run(5, "Number of latest checkpoints kept.", low=1)
    eval_interval_steps: int = _run(
        1000,
        "Steps between two validations, and between pictures in TensorBoard.",
        low=1,
    )
    best_metric: str = _run(
        "AP_VOC07/mAP",
        "Metric that the best checkpoint is chosen by.",
        choices=("AP_VOC07/mAP", "AP_VOC12/mAP", "COCO/AP"),
    )
    early_stopping_patience: int = _run(
        0,
        "Validations without improvement after which training stops; 0: never.",
        low=0,
    )
    trainable_scopes: tuple[str, ...] = _scopes(
        (),
        "Parts of the net that are trained, such as "
        "`ssd_300_vgg/block4_box,conv7`, in whole layers [all].",
        "optimizer",
    )
    loss: LossParams = LossParams()


@dataclasses.dataclass(frozen=True)
class StartParams:
    """The weights that a new run starts from; names are the port's."""

    checkpoint_path: str | None = _weights(
        None,
        "Weights to start from: a train_dir, a checkpoint in it, or a TF1 "
        "checkpoint. Not read once --train_dir has a checkpoint.",
    )
    checkpoint_model_scope: str | None = _weights(
        None,
        "First component of variable names in a TF1 checkpoint, such as vgg_16 "
        "[the model's].",
    )
    checkpoint_exclude_scopes: tuple[str, ...] = _scopes(
        (),
        "Parts of the net that keep their initial values, such as "
        "`ssd_300_vgg/conv6,block4_box`.",
        "start",
    )
    ignore_missing_vars: bool = _weights(
        False, "Keep the initial values of variables that the file lacks."
    )
    # Read by `ssd_tf.weights.formats`.
    backbone_weights: str | None = _weights(
        None,
        "File of a classifier or detector of Caffe, PyTorch, Keras or TF-Slim "
        "to start from, or `imagenet` for the weights that Keras publishes.",
    )


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """The folder of a run, and what to do with it."""

    train_dir: str | None = _run(
        None, "Folder for checkpoints, config.json and logs."
    )
    confirm_changes: bool = _run(
        False, "Resume a run although its settings have changed."
    )
    overfit_batch: bool = _run(
        False, "Only check that the net can overfit the first batch."
    )


@dataclasses.dataclass(frozen=True)
class TrainOptions:
    """Everything that train_ssd.py and `ssd_tf.train` take."""

    dataset_dir: str | None = data.dataset_dir()
    dataset_split_name: str = data.dataset_split_name(
        "train", "Split to train on."
    )
    validation_split_name: str | None = setting(
        None,
        "Split to evaluate on every --eval_interval_steps; the best "
        "checkpoint is kept in TRAIN_DIR/best.",
        "data",
    )
    unreadable_shards: str = data.unreadable_shards()
    net: NetOptions = NetOptions()
    start: StartParams = StartParams()
    training: TrainParams = TrainParams()
    run: RunOptions = RunOptions()
    given: frozenset[str] = frozenset()  # names that were not left out
