"""Help texts, names and bounds of the flags that `config_flags` defines."""

from ssd_tf.config.net import DetectionParams, StartParams
from ssd_tf.config.training import AugmentParams, LossParams, TrainParams

# Field -> help.
HELP: dict[type, dict[str, str]] = {
    AugmentParams: {
        "brightness_prob": "Chance of another brightness.",
        "brightness_delta": "Largest change of brightness, of 255.",
        "contrast_prob": "Chance of another contrast.",
        "contrast_range": "Least and largest factor.",
        "saturation_prob": "Chance of another saturation.",
        "saturation_range": "Least and largest factor.",
        "hue_prob": "Chance of another hue.",
        "hue_delta": "Largest turn of the hues, of 180.",
        "random_order_prob": "Chance that contrast comes last.",
        "expand_prob": "Chance of zooming out.",
        "max_expand_ratio": "Largest zoom.",
        "crop_prob": "Chance of a crop, or of the whole image among them.",
        "crop_overlaps": "Least IoU of a crop with some box, one is drawn.",
        "crop_scale": "Least and largest root of a crop's share of the area.",
        "crop_aspect_ratio": "Least and largest width by height.",
        "crop_trials": "Crops that are tried for each overlap.",
        "flip_prob": "Chance of mirroring.",
        "random_interpolation": "Resize by a kernel drawn from five.",
    },
    DetectionParams: {
        "select_threshold": "Smallest score of a detection.",
        "nms_threshold": "IoU beyond which the lower score of a class goes.",
        "top_k": "Candidates of a class before suppression.",
        "keep_top_k": "Detections of an image, over all classes.",
    },
    LossParams: {
        "match_threshold": "IoU from which an anchor is positive.",
        "force_match": "Every box first takes its best free anchor.",
        "negative_ratio": "Mined negatives per positive.",
        "alpha": "Weight of the localisation loss.",
        "label_smoothing": "Share of the class target spread over all classes.",
        "mining": (
            "Hard negatives per `image` (paper, Caffe) or over the `batch` "
            "(SSD-TensorFlow)."
        ),
        "normalizer": (
            "Divide the loss by the number of `positives` (paper, Caffe) or "
            "the `batch_size` (SSD-TensorFlow)."
        ),
        "min_negatives": "Mined negatives per image at least.",
    },
    TrainParams: {
        "batch_size": "Images of a step, over all devices.",
        "max_number_of_steps": "Length of the training, in steps.",
        "optimizer": "The optimizer.",
        "momentum": "Of --optimizer=momentum.",
        "opt_epsilon": "Of adadelta, adagrad, adam, adamw and rmsprop.",
        "adam_beta1": "Of adam and adamw.",
        "adam_beta2": "Of adam and adamw.",
        "rmsprop_decay": "Of rmsprop.",
        "rmsprop_momentum": "Of rmsprop.",
        "adadelta_rho": "Of adadelta.",
        "bias_learning_rate_multiplier": "Learning rate of biases by others'.",
        "clip_gradient_norm": (
            "Global norm beyond which gradients are scaled down; 0: never."
        ),
        "gradient_accumulation_steps": (
            "Parts that a batch is computed in, to save memory."
        ),
        "ema_decay": (
            "> 0: evaluation and export use this moving average of the weights."
        ),
        "learning_rate": "After the warm-up.",
        "learning_rate_decay_type": "How the rate falls.",
        "learning_rate_decay_factor": "Of step and exponential.",
        "decay_boundaries": "Of step: where it falls, as shares of all steps.",
        "num_epochs_per_decay": "Of exponential.",
        "end_learning_rate": "Of cosine and polynomial.",
        "polynomial_power": "Of polynomial.",
        "warmup_steps": "Steps of linear rise at the start.",
        "weight_decay": "L2, on convolution kernels only.",
        "ignore_difficult": "Ignore difficult boxes, do not train on them.",
        "seed": "Of initial weights, order and augmentation.",
        "precision": "Of the network; heads and losses are float32 in any.",
        "jit_compile": "Compile the whole step with XLA; auto: on GPUs.",
        "save_interval_steps": "Steps between two checkpoints.",
        "log_every_n_steps": "Steps between two log entries.",
        "max_to_keep": "Checkpoints kept, the latest.",
        "eval_interval_steps": "Steps between two validations, and pictures in "
        "TensorBoard.",
        "best_metric": "By which the best checkpoint is kept apart.",
        "early_stopping_patience": (
            "Validations without a better one until training stops; 0: never."
        ),
        "trainable_scopes": (
            "Parts that are trained, such as `ssd_300_vgg/block4_box,conv7`, "
            "in whole layers; all by default."
        ),
    },
    StartParams: {
        "checkpoint_path": (
            "What to start from: a train_dir or a checkpoint in it, or a TF1 "
            "checkpoint. Not read once --train_dir has a checkpoint."
        ),
        "checkpoint_model_scope": (
            "First part of the names in a TF1 checkpoint, such as vgg_16; the "
            "model's by default."
        ),
        "checkpoint_exclude_scopes": (
            "Parts that start fresh, such as `ssd_300_vgg/conv6,block4_box`."
        ),
        "ignore_missing_vars": "Start fresh what the weights do not have.",
        "backbone_weights": (
            "A classifier's or detector's file of Caffe, PyTorch, Keras or "
            "TF-Slim to start from, or `imagenet` for what Keras publishes."
        ),
    },
}
# Field -> its flag, where that has the port's name.
NAMES = {"top_k": "select_top_k", "alpha": "loss_alpha"}

# Field -> least and largest value.
_SHARE = (0.0, 1.0)
BOUNDS: dict[str, tuple[float | None, float | None]] = {
    **dict.fromkeys(
        (
            "select_threshold",
            "nms_threshold",
            "match_threshold",
            "label_smoothing",
            "momentum",
            "adam_beta1",
            "adam_beta2",
            "rmsprop_decay",
            "rmsprop_momentum",
            "adadelta_rho",
            "ema_decay",
            "brightness_prob",
            "contrast_prob",
            "saturation_prob",
            "hue_prob",
            "random_order_prob",
            "expand_prob",
            "crop_prob",
            "flip_prob",
        ),
        _SHARE,
    ),
    **dict.fromkeys(
        (
            "top_k",
            "keep_top_k",
            "batch_size",
            "max_number_of_steps",
            "save_interval_steps",
            "log_every_n_steps",
            "max_to_keep",
            "gradient_accumulation_steps",
            "eval_interval_steps",
            "max_expand_ratio",
            "crop_trials",
        ),
        (1, None),
    ),
    **dict.fromkeys(
        (
            "negative_ratio",
            "alpha",
            "min_negatives",
            "opt_epsilon",
            "learning_rate_decay_factor",
            "num_epochs_per_decay",
            "end_learning_rate",
            "warmup_steps",
            "weight_decay",
            "seed",
            "brightness_delta",
            "bias_learning_rate_multiplier",
            "clip_gradient_norm",
            "polynomial_power",
            "early_stopping_patience",
        ),
        (0, None),
    ),
    "learning_rate": (1e-12, None),
    "hue_delta": (0, 90),
}
