"""Class names: `labels.txt`, `label_map.pbtxt`, and the well-known lists.

Line k of `labels.txt` names class k, counted from 1; class 0 is the
background and has no line. Nothing here knows of boxes.
"""

import pathlib
import re
from collections.abc import Sequence

from ssd_tf.command import UserError, files

# In the numbering of SSD-TensorFlow's and Caffe's trained weights.
VOC_LABELS = tuple(
    "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog "
    "horse motorbike person pottedplant sheep sofa train tvmonitor".split()
)

# In the order of COCO's category ids, their gaps closed.
_COCO = (
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,"
    "traffic light,fire hydrant,stop sign,parking meter,bench,bird,cat,dog,"
    "horse,sheep,cow,elephant,bear,zebra,giraffe,backpack,umbrella,handbag,"
    "tie,suitcase,frisbee,skis,snowboard,sports ball,kite,baseball bat,"
    "baseball glove,skateboard,surfboard,tennis racket,bottle,wine glass,"
    "cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,"
    "carrot,hot dog,pizza,donut,cake,chair,couch,potted plant,bed,"
    "dining table,toilet,tv,laptop,mouse,remote,keyboard,cell phone,"
    "microwave,oven,toaster,sink,refrigerator,book,clock,vase,scissors,"
    "teddy bear,hair drier,toothbrush"
)
COCO_LABELS = tuple(_COCO.split(","))

# How a number is named that no class has, before that number.
UNUSED = "unused_"

# `item {`, or `key: value` with a quoted or bare value, or a comment.
_PBTXT_TOKEN = re.compile(
    r"(?P<item>\bitem\s*:?\s*\{)"
    r"|(?P<key>\w+)\s*:\s*"
    r"(?P<value>\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'|[^\s}]+)"
    r"|#[^\n]*"
)


def read(path: str | pathlib.Path) -> list[str]:
    """Class names from `labels.txt` or, by its suffix, a `.pbtxt` label map.

    Returns:
      The names; element k - 1 names class k. Ids that a label map leaves out
      (COCO's has 80 names for 90 ids) are named `unused_<id>`.

    Raises:
      UserError: the file is missing or empty, or a name is empty, doubled or
        the background.
    """
    path = pathlib.Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"{path}: class names cannot be read: {error}"
        ) from error
    if path.suffix == ".pbtxt":
        names = _parse_label_map(text, path)
    else:
        names = [line.strip() for line in text.rstrip().splitlines()]
    return check(names, str(path))


def check(names: Sequence[str], source: str) -> list[str]:
    """Returns the names as a list, if they can be the classes of a data set.

    Args:
      names: class names in order.
      source: the file or flag they come from, for the message.

    Raises:
      UserError: there is none, or one is empty, doubled, has a line break or
        is the background.
    """
    if not any(names):
        raise UserError(f"{source}: no class name found")
    for index, name in enumerate(names):
        if not name.strip() or "\n" in name:
            fault = "is empty or has a line break; write one name per class"
        elif name in names[:index]:
            fault = "is there twice; every class needs its own name"
        elif name.strip("_").lower() == "background":
            fault = "is no class of its own; class 1 comes first, remove it"
        else:
            continue
        raise UserError(f"{source}: name {index + 1}, {name!r}, {fault}")
    return list(names)


def write_labels(path: str | pathlib.Path, names: Sequence[str]) -> None:
    """Writes `labels.txt`; `read` gives the names back."""
    names = check(names, str(path))
    files.write_text(path, "".join(f"{name}\n" for name in names))


def write_label_map(path: str | pathlib.Path, names: Sequence[str]) -> None:
    """Writes a TF Object Detection API label map; `read` is its inverse."""
    items = (
        f"item {{\n  id: {number}\n  name: '{_escape(name)}'\n}}\n"
        for number, name in enumerate(check(names, str(path)), start=1)
    )
    files.write_text(path, "".join(items))


def _escape(name):
    return re.sub(r"([\\'])", r"\\\1", name)


def _unquote(value):
    if value[0] not in "'\"":
        return value
    return re.sub(r"\\(.)", r"\1", value[1:-1])


def _parse_label_map(text, path):
    items = []
    for token in _PBTXT_TOKEN.finditer(text):
        if token["item"]:
            items.append({})
        elif token["key"] and items:
            items[-1][token["key"]] = _unquote(token["value"])
    by_id = {}
    for item in items:
        name = item.get("display_name", item.get("name", ""))
        if not item.get("id", "").isdecimal() or int(item["id"]) in by_id:
            raise UserError(
                f"{path}: item {name!r} has id {item.get('id')!r}; expected "
                "a whole number that no other item has"
            )
        by_id[int(item["id"])] = name
    # Some label maps list the background, which is 0 everywhere.
    by_id.pop(0, None)
    return [
        by_id.get(number, f"{UNUSED}{number}")
        for number in range(1, max(by_id, default=0) + 1)
    ]
