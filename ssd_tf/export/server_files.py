"""models.config and batching.config, beside the versions of a model."""

import pathlib
import re

from ssd_tf.command import files

MODELS_CONFIG = "models.config"
BATCHING_CONFIG = "batching.config"
_MODELS = """\
# tensorflow_model_server --model_config_file=/models/{name}/{file}
model_config_list {{
  config {{
    name: "{name}"
    base_path: "/models/{name}"
    model_platform: "tensorflow"
    # The newest version that is there; to roll back or to serve two:
    # model_version_policy {{ specific {{ versions: 1 versions: 2 }} }}
    model_version_policy {{ latest {{ num_versions: 1 }} }}
  }}
}}
"""
_BATCHING = """\
# tensorflow_model_server --enable_batching=true \\
#     --batching_parameters_file=/models/{name}/{file}
# Requests of image_bytes, whatever the size of their images, are merged into
# batches. docs/serving.md says what that is worth and when it is not.
# Exports read max_batch_size for their warm-up requests. Lower it, and versions
# that are there already fail to load, with their requests of more images:
# export them again, or remove their assets.extra.
max_batch_size {{ value: 8 }}
batch_timeout_micros {{ value: 2000 }}
num_batch_threads {{ value: 2 }}
max_enqueued_batches {{ value: 100 }}
allowed_batch_sizes: 1
allowed_batch_sizes: 2
allowed_batch_sizes: 4
allowed_batch_sizes: 8
"""


def max_batch_size(export_dir: pathlib.Path) -> int | None:
    """What batching.config says; None where there is none, or it does not."""
    path = export_dir / BATCHING_CONFIG
    if not path.is_file():
        return None
    text = re.sub(r"#.*", "", path.read_text("utf-8"))
    found = re.search(r"max_batch_size\s*:?\s*{\s*value\s*:\s*(\d+)", text)
    return int(found[1]) if found else None


def write(export_dir: pathlib.Path) -> None:
    """Writes both, unless they are there: their owner may have changed them.

    Args:
      export_dir: folder of the versions; its name is the model's, and a
        server finds it as /models/NAME.
    """
    name = export_dir.resolve().name
    for file, text in ((MODELS_CONFIG, _MODELS), (BATCHING_CONFIG, _BATCHING)):
        if not (export_dir / file).exists():
            files.write_text(
                export_dir / file, text.format(name=name, file=file)
            )
