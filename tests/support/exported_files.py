"""What tests of exported files compare them with, and read of them."""

import numpy as np

from ssd_tf.config.evaluation import DetectionParams
from ssd_tf.input_pipeline import preprocessing


def resized(net, encoded):
    """Images as a file takes them: float32 [B, H, W, 3] in 0..255."""
    size = net.params.img_shape
    return np.stack(
        [preprocessing.resize(preprocessing.decode(x), size) for x in encoded]
    )


def detect(net, images, **options):
    """What the net finds, as NumPy arrays by their names."""
    whitened = preprocessing.whiten(images, net.params)
    found = net.detect(whitened, DetectionParams(**options))
    return {name: x.numpy() for name, x in found._asdict().items()}


def metadata_of(content):
    """The buffer that a TFLite file names TFLITE_METADATA."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(content)
    named = {
        model.Metadata(i).Name(): model.Metadata(i).Buffer()
        for i in range(model.MetadataLength())
    }
    return model.Buffers(named[b"TFLITE_METADATA"]).DataAsNumpy().tobytes()


def assert_takes_bytes(path):
    """The input of a TFLite file is a pixel, a step of it a step of that."""
    from ai_edge_litert.interpreter import Interpreter

    (given,) = Interpreter(str(path)).get_input_details()
    assert given["dtype"] == np.uint8
    np.testing.assert_allclose(given["quantization"], (1.0, 0), atol=1e-6)
