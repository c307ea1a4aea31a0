"""SSD300's deploy.prototxt, as ssd_pascal.py of weiliu89/caffe writes it."""

from caffe_model import convolutions

_POOLS = {"conv1_2": 1, "conv2_2": 2, "conv3_3": 3, "conv4_3": 4}


def deploy(sources, num_classes, confidence):
    """The text of the file.

    Args:
      sources: of `caffe_model.SOURCES`, six.
      num_classes: with the background.
      confidence: smallest score of a detection.
    """
    text = 'name: "ssd" input: "data" '
    text += "input_shape { dim: 1 dim: 3 dim: 300 dim: 300 }\n"
    bottom = "data"
    for row in convolutions(sources, num_classes):
        name = row[0]
        if "_mbox_" in name:
            text += _head(row, bottom=name.split("_mbox_")[0])
            continue
        text += _convolution(row, bottom)
        text += _layer("relu_" + name, "ReLU", [name], name)
        bottom = name
        if name in _POOLS:
            bottom = f"pool{_POOLS[name]}"
            text += _pool(bottom, name, "kernel_size: 2 stride: 2")
        if name == "conv5_3":
            bottom = "pool5"
            text += _pool(bottom, name, "kernel_size: 3 stride: 1 pad: 1")
        if name == "conv9_2":
            text += _norm()
    for source in sources:
        text += _prior_box(source)
    return text + _output(sources, num_classes, confidence)


def _layer(name, kind, bottoms, top=None, body=""):
    bottoms = " ".join(f'bottom: "{bottom}"' for bottom in bottoms)
    return (
        f'layer {{ name: "{name}" type: "{kind}" {bottoms} '
        f'top: "{top or name}" {body} }}\n'
    )


def _convolution(row, bottom):
    name, _, outputs, kernel, stride, pad, dilation = row
    body = (
        f"convolution_param {{ num_output: {outputs} kernel_size: {kernel} "
        f"stride: {stride} pad: {pad} dilation: {dilation} }}"
    )
    return _layer(name, "Convolution", [bottom], body=body)


def _pool(name, bottom, size):
    body = f"pooling_param {{ pool: MAX {size} }}"
    return _layer(name, "Pooling", [bottom], body=body)


def _norm():
    body = "norm_param { across_spatial: false channel_shared: false }"
    return _layer("conv4_3_norm", "Normalize", ["conv4_3"], body=body)


def _head(row, bottom):
    name = row[0]
    order = "permute_param { order: 0 order: 2 order: 3 order: 1 }"
    perm, flat = f"{name}_perm", f"{name}_flat"
    return (
        _convolution(row, bottom)
        + _layer(perm, "Permute", [name], body=order)
        + _layer(flat, "Flatten", [perm], body="flatten_param { axis: 1 }")
    )


def _prior_box(source):
    ratios = " ".join(f"aspect_ratio: {ratio}" for ratio in source.ratios)
    body = (
        f"prior_box_param {{ min_size: {source.min_size} "
        f"max_size: {source.max_size} {ratios} flip: true clip: false "
        "variance: 0.1 variance: 0.1 variance: 0.2 variance: 0.2 "
        f"step: {source.step} offset: 0.5 }}"
    )
    name = f"{source.name}_mbox_priorbox"
    return _layer(name, "PriorBox", [source.name, "data"], body=body)


def _output(sources, num_classes, confidence):
    parts = {"loc": ("_flat", 1), "conf": ("_flat", 1), "priorbox": ("", 2)}
    text = ""
    for part, (ending, axis) in parts.items():
        bottoms = [f"{s.name}_mbox_{part}{ending}" for s in sources]
        body = f"concat_param {{ axis: {axis} }}"
        text += _layer(f"mbox_{part}", "Concat", bottoms, body=body)
    shape = f"reshape_param {{ shape {{ dim: 0 dim: -1 dim: {num_classes} }} }}"
    detection = (
        f"detection_output_param {{ num_classes: {num_classes} "
        "share_location: true background_label_id: 0 "
        "nms_param { nms_threshold: 0.45 top_k: 400 } code_type: CENTER_SIZE "
        f"keep_top_k: 200 confidence_threshold: {confidence} }}"
    )
    softmax, scores = "mbox_conf_softmax", "mbox_conf_flatten"
    bottoms = ["mbox_loc", scores, "mbox_priorbox"]
    return (
        text
        + _layer("mbox_conf_reshape", "Reshape", ["mbox_conf"], body=shape)
        + _layer(
            softmax,
            "Softmax",
            ["mbox_conf_reshape"],
            body="softmax_param { axis: 2 }",
        )
        + _layer(scores, "Flatten", [softmax], body="flatten_param { axis: 1 }")
        + _layer("detection_out", "DetectionOutput", bottoms, body=detection)
    )
