"""Small VOC trees for the tests of the data room."""

import io
import pathlib

import numpy as np
from PIL import Image


def picture(height=40, width=60, mode="RGB", image_format="JPEG", **options):
    """Encoded bytes of a colour ramp."""
    ramp = np.linspace(0, 255, height * width * 3, dtype=np.uint8)
    image = Image.fromarray(ramp.reshape(height, width, 3)).convert(mode)
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def item(name="cat", box=(1, 1, 30, 20), **tags):
    """An <object>; box is xmin, ymin, xmax, ymax as written."""
    extra = "".join(f"<{tag}>{text}</{tag}>" for tag, text in tags.items())
    corners = "".join(
        f"<{corner}>{value}</{corner}>"
        for corner, value in zip(
            ("xmin", "ymin", "xmax", "ymax"), box, strict=True
        )
    )
    return (
        f"<object><name>{name}</name>{extra}<bndbox>{corners}</bndbox></object>"
    )


def add(
    root, name, *items, image=None, image_name=None, size=(40, 60), stated=None
):
    """Adds one annotation and its image (`image=b""` for none) to a tree."""
    root = pathlib.Path(root)
    for folder in ("Annotations", "JPEGImages"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    image_name = image_name or f"{name}.jpg"
    text = f"<annotation><filename>{stated or image_name}</filename>"
    if size:
        text += (
            f"<size><width>{size[1]}</width><height>{size[0]}</height></size>"
        )
    text += "".join(items) + "</annotation>"
    (root / "Annotations" / f"{name}.xml").write_text(text, "utf-8")
    if image is None:
        image = picture()
    if image:
        (root / "JPEGImages" / image_name).write_bytes(image)


def add_split(root, split, lines):
    """Writes `ImageSets/Main/SPLIT.txt`."""
    folder = pathlib.Path(root) / "ImageSets" / "Main"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{split}.txt").write_text("\n".join(lines) + "\n", "utf-8")
