"""Runs signatures of a SavedModel as TensorFlow Serving does.

    python session_run.py SAVED_MODEL INPUTS.pickle OUTPUTS.pickle

The TF1 loader, a session, the signature's tensors; written without the
package, so that it is a witness of its own. INPUTS is a list of (signature
name, inputs by name), OUTPUTS the list of the outputs by name.
"""

import pickle
import sys

import tensorflow as tf


def main(model_dir, inputs_file, outputs_file):
    with open(inputs_file, "rb") as file:
        requests = pickle.load(file)
    answers = []
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        meta = tf.compat.v1.saved_model.load(session, ["serve"], model_dir)
        for name, inputs in requests:
            signature = meta.signature_def[name]
            feed = {signature.inputs[k].name: v for k, v in inputs.items()}
            assert set(inputs) == set(signature.inputs)
            fetches = {k: v.name for k, v in signature.outputs.items()}
            answers.append(session.run(fetches, feed))
    with open(outputs_file, "wb") as file:
        pickle.dump(answers, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
