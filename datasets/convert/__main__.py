"""Converts an annotated data set into TFRecord shards.

  python -m ssd_tf.datasets.convert --format=voc --output_dir=data/voc \\
      --dataset_dir=VOC2007,VOC2012 --splits=trainval,test

Writes SPLIT-00000-of-0000N.tfrecord, labels.txt, label_map.pbtxt and, last,
manifest.json: how many images and boxes per split and class, the shards'
checksums, and everything that was skipped, dropped, clipped or mended.
The output is the same byte for byte for the same input, whatever the number
of processes. Convert into one folder with one command at a time.
"""

from ssd_tf import command
from ssd_tf.command.settings import require
from ssd_tf.datasets.convert import convert
from ssd_tf.datasets.convert.convert import ConvertOptions


def main(options: ConvertOptions) -> None:
    """Converts, and prints the number of boxes per class and split."""
    require(options, "output_dir")
    manifest = convert.run(options)
    splits = manifest["splits"]
    command.print_table(
        "boxes",
        ["class", *splits],
        [
            [name, *(part["boxes_per_class"][name] for part in splits.values())]
            for name in manifest["classes"]
        ],
    )


def run() -> None:
    """Runs the command `ssd-convert`."""
    command.run(main, ConvertOptions, __doc__)


if __name__ == "__main__":
    run()
