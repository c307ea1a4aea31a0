"""The settings of a training run: augmentation, loss, optimisation.

Their defaults are the recipe of the paper and of ssd_pascal.py; see
`ssd_tf.config.net` for the sources, and for the file that holds them.
"""

import dataclasses

# What the settings below may be, by field.
CHOICES = {
    "anchor_clip": ("none", "sizes", "all"),
    "trunk_variant": ("keras", "slim", "torchvision"),
    "mining": ("image", "batch"),
    "normalizer": ("positives", "batch_size"),
    "optimizer": (
        "adadelta",
        "adagrad",
        "adam",
        "adamw",
        "ftrl",
        "momentum",
        "rmsprop",
        "sgd",
    ),
    "learning_rate_decay_type": (
        "step",
        "cosine",
        "exponential",
        "polynomial",
        "fixed",
    ),
    "precision": ("float32", "mixed_bfloat16", "mixed_float16"),
    "jit_compile": ("auto", "on", "off"),
    "best_metric": ("AP_VOC07/mAP", "AP_VOC12/mAP", "COCO/AP"),
}


def check_choice(field: str, value: str) -> None:
    """Refuses a value that `CHOICES` does not have.

    Raises:
      ValueError: naming field, choices and value.
    """
    if value not in CHOICES[field]:
        raise ValueError(
            f"{field} must be one of {', '.join(CHOICES[field])}; "
            f"received {value!r}"
        )


@dataclasses.dataclass(frozen=True)
class AugmentParams:
    """How training images vary; defaults of ssd_pascal.py.

    Names are Caffe's (DistortionParameter, ExpansionParameter), but for
    `random_order_prob`, which there shuffles channels. A probability of 0
    leaves an operation out.
    """

    brightness_prob: float = 0.5
    brightness_delta: float = 32.0  # of 255
    contrast_prob: float = 0.5
    contrast_range: tuple[float, float] = (0.5, 1.5)
    saturation_prob: float = 0.5
    saturation_range: tuple[float, float] = (0.5, 1.5)
    hue_prob: float = 0.5
    hue_delta: float = 18.0  # of 180, OpenCV's circle of hues
    # Contrast changes last instead of after brightness: in im_transforms.cpp
    # a coin, here a setting.
    random_order_prob: float = 0.5
    # Zoom out: the image somewhere on a canvas of the mean colour.
    expand_prob: float = 0.5
    max_expand_ratio: float = 4.0
    crop_prob: float = 1.0
    # A crop has at least this IoU with some box; 0 asks for nothing. The
    # whole image is one more choice.
    crop_overlaps: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7, 0.9, 0.0)
    crop_scale: tuple[float, float] = (0.3, 1.0)  # root of the share of area
    crop_aspect_ratio: tuple[float, float] = (0.5, 2.0)  # width / height
    crop_trials: int = 50
    flip_prob: float = 0.5
    # Resizes by any of five kernels; else by the bilinear of evaluation.
    random_interpolation: bool = True


# --augmentation: where its own flags say nothing else.
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
    """Arguments of `losses.ssd_losses`, and how boxes get their anchors."""

    match_threshold: float = 0.5  # IoU from which an anchor is positive
    # Every box takes its best free anchor first (paper, 2.2; Caffe).
    force_match: bool = True
    negative_ratio: float = 3.0  # mined negatives per positive (paper, 2.2)
    alpha: float = 1.0  # weight of the localisation loss (paper, 2.2)
    label_smoothing: float = 0.0
    mining: str = "image"
    normalizer: str = "positives"
    min_negatives: int = 3


@dataclasses.dataclass(frozen=True)
class TrainParams:
    """The training recipe; defaults of ssd_pascal.py where it has one."""

    batch_size: int = 32  # over all replicas
    max_number_of_steps: int = 120_000
    optimizer: str = "momentum"
    momentum: float = 0.9
    opt_epsilon: float = 1e-7  # the port's 1.0 makes steps 479 times smaller
    adam_beta1: float = 0.9
    adam_beta2: float = 0.999
    rmsprop_decay: float = 0.9
    rmsprop_momentum: float = 0.9
    adadelta_rho: float = 0.95
    # Of biases, as lr_mult of Caffe's bias blobs.
    bias_learning_rate_multiplier: float = 2.0
    # Global norm beyond which gradients are scaled down; 0: never.
    clip_gradient_norm: float = 0.0
    # Parts of a batch that are computed one after the other (iter_size).
    gradient_accumulation_steps: int = 1
    # > 0: evaluation and export use a moving average of the weights.
    ema_decay: float = 0.0
    learning_rate: float = 1e-3
    learning_rate_decay_type: str = "step"
    learning_rate_decay_factor: float = 0.1
    # Where `step` multiplies by the factor, as shares of all steps: 80,000
    # and 100,000 of 120,000.
    decay_boundaries: tuple[float, ...] = (2 / 3, 5 / 6)
    num_epochs_per_decay: float = 2.0  # of `exponential`, the port's
    end_learning_rate: float = 0.0  # of `cosine` and `polynomial`
    polynomial_power: float = 1.0  # of `polynomial`
    warmup_steps: int = 500
    weight_decay: float = 5e-4  # on kernels only
    augmentation: AugmentParams = AUGMENTATIONS["ssd"]
    ignore_difficult: bool = False  # Caffe trains VOC on them
    seed: int = 0
    precision: str = "float32"
    jit_compile: str = "auto"  # the whole step, by XLA
    save_interval_steps: int = 1000
    log_every_n_steps: int = 10
    max_to_keep: int = 5
    # Steps between two evaluations on the validation split.
    eval_interval_steps: int = 1000
    best_metric: str = "AP_VOC07/mAP"  # of the checkpoint that is kept apart
    # Evaluations without a better one after which training stops; 0: never.
    early_stopping_patience: int = 0
    # Parts that are trained, see `ssd_tf.nets.scopes`; all of them if empty.
    trainable_scopes: tuple[str, ...] = ()
    loss: LossParams = LossParams()
