"""A client of TF Object Detection API, in the words of its tutorials.

    python tfod_client.py SAVED_MODEL IMAGE

It knows nothing of ssd_tf. Prints JSON: boxes, classes and scores of an image.
"""

import json
import sys

import numpy as np
import tensorflow as tf
from PIL import Image


def run_inference_for_single_image(detect_fn, image):
    image = np.asarray(image)
    input_tensor = tf.convert_to_tensor(image)
    input_tensor = input_tensor[tf.newaxis, ...]
    output_dict = detect_fn(input_tensor)
    # The tutorials say int(...) alone, which NumPy 2.4 refuses for a batch.
    num_detections = int(output_dict.pop("num_detections")[0])
    output_dict = {
        key: value[0, :num_detections].numpy()
        for key, value in output_dict.items()
    }
    output_dict["num_detections"] = num_detections
    output_dict["detection_classes"] = output_dict["detection_classes"].astype(
        np.int64
    )
    return output_dict


def main(path, image_path):
    image = np.array(Image.open(image_path).convert("RGB"))
    loaded = tf.saved_model.load(path)
    answers = [
        run_inference_for_single_image(detect_fn, image)
        for detect_fn in (loaded, loaded.signatures["serving_default"])
    ]
    wanted = ("detection_boxes", "detection_classes", "detection_scores")
    found = [{key: x[key].tolist() for key in wanted} for x in answers]
    assert found[0] == found[1]
    assert np.all(np.array(found[0]["detection_classes"]) >= 1)
    print(json.dumps(found[0]))


if __name__ == "__main__":
    main(*sys.argv[1:])
