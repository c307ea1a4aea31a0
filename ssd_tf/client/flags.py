"""The flags of the client."""

from absl import flags

from ssd_tf.detect import image_files

# Held in memory while the server is measured.
BENCH_BATCHES = 16

_STRINGS = (
    ("server", None, "HOST:PORT; TF Serving's are 8501 (REST), 8500 (gRPC)."),
    ("model_name", "ssd", "Name of the model there."),
    ("signature_name", "serving_default", "One that takes encoded images."),
    ("labels", None, "The model's labels.txt [classes are called by number]."),
    ("output_dir", None, "For pictures and JSON [detections are printed]."),
)
# Name, default, least value, help.
_INTEGERS = (
    ("version", None, 1, "Version of the model [the highest]."),
    ("batch_size", 8, 1, "Images of a request."),
    (
        *("retries", 3, 0),
        "Times that a request is sent again where there is no connection or "
        "the server is too busy to begin with it.",
    ),
    ("concurrency", 4, 1, "Of --bench: requests at a time."),
    (
        *("max_image_megapixels", image_files.MAX_MEGAPIXELS, 1),
        "Larger images are not read.",
    ),
)
_FLOATS = (
    ("min_score", 0.5, 0.0, "Smallest score that is drawn or printed."),
    ("timeout", 30.0, 1e-3, "Seconds for a request with all its retries."),
    (
        *("wait", 0.0, 0.0),
        "Seconds to wait for the server and the model; without images nothing "
        "else is done.",
    ),
    ("duration", 10.0, 1e-3, "Of --bench: seconds."),
)


def define(flag_values: flags.FlagValues) -> None:
    """Defines them all."""
    flag_values.set_gnu_getopt()  # flags may stand behind the images
    for name, default, text in _STRINGS:
        flags.DEFINE_string(name, default, text, flag_values=flag_values)
    for name, default, least, text in _INTEGERS:
        flags.DEFINE_integer(
            name, default, text, least, flag_values=flag_values
        )
    for name, default, least, text in _FLOATS:
        flags.DEFINE_float(name, default, text, least, flag_values=flag_values)
    flags.DEFINE_enum(
        "protocol",
        "rest",
        ("rest", "grpc"),
        "grpc needs the extra ssd-tf[serving].",
        flag_values=flag_values,
    )
    flags.DEFINE_boolean(
        "bench",
        False,
        f"Measure the server with the images, {BENCH_BATCHES} batches of them "
        "at most.",
        flag_values=flag_values,
    )
