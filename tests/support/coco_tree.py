"""A COCO data set in files, from annotations of a VOC tree."""

import json
import pathlib

from ssd_tf.datasets.formats import voc

# With gaps, as in COCO's own.
FIRST_ID, STEP = 3, 5


def write(root, voc_root, split, class_names):
    """Writes annotations/instances_SPLIT.json beside no images.

    Category ids fall as the names rise, so that their order is not the names'.
    """
    ids = {
        name: FIRST_ID + STEP * k
        for k, name in enumerate(reversed(class_names))
    }
    images, rows = [], []
    for number, item in enumerate(voc.read([pathlib.Path(voc_root)], split), 7):
        size = (item.height, item.width)
        images.append(
            {
                "id": number,
                "file_name": item.image_path.name,
                "height": size[0],
                "width": size[1],
            }
        )
        for box, name in zip(item.boxes * (size * 2), item.names, strict=True):
            ymin, xmin, ymax, xmax = map(float, box)
            rows.append(
                {
                    "id": len(rows) + 1,
                    "image_id": number,
                    "category_id": ids[name],
                    "bbox": [xmin, ymin, xmax - xmin, ymax - ymin],
                    "area": (xmax - xmin) * (ymax - ymin),
                    "iscrowd": 0,
                }
            )
    content = {
        "images": images[::-1],
        "annotations": rows,
        "categories": [{"id": i, "name": name} for name, i in ids.items()],
    }
    path = pathlib.Path(root) / "annotations" / f"instances_{split}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path
