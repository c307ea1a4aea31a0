"""Nets and their exports as functions from encoded images to arrays."""

from ssd_tf.config.evaluation import DetectionParams
from ssd_tf.detect import saved_model
from ssd_tf.export import saved_model as exported
from ssd_tf.export import signatures
from ssd_tf.export.model import Model
from ssd_tf.nets import checkpoint


def load_predictor(path, options=DetectionParams()):
    """The function and the class names of a train_dir or an export."""
    version = saved_model.find_saved_model(path)
    if version is None:
        predict = signatures.make_predict(checkpoint.load_net(path), options)
        return predict, checkpoint.load_config(path).class_names
    return saved_model.load(version), saved_model.read_labels(version)


def export_saved_model(
    net, class_names, export_dir, options=DetectionParams(), version=None
):
    """Writes a version of an export."""
    model = Model(net, tuple(class_names))
    return exported.write(model, export_dir, options, version=version)
