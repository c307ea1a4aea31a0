"""Images of every format and kind that somebody will send."""

import io
import struct
import zlib

from PIL import Image

HEIGHT, WIDTH = 37, 301


def encoded(kind, size=(WIDTH, HEIGHT), mode="RGB", **options):
    """A picture in a file format, its left half red."""
    image = Image.new("RGB", size, "blue")
    image.paste("red", (0, 0, size[0] // 2, size[1]))
    file = io.BytesIO()
    image.convert(mode).save(file, kind, **options)
    return file.getvalue()


def chunk(name, data):
    """Of a PNG."""
    check = struct.pack(">I", zlib.crc32(name + data))
    return struct.pack(">I", len(data)) + name + data + check


def bomb(height, width):
    """A PNG's header that promises so many pixels, and a little data."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            chunk(b"IDAT", data),
            chunk(b"IEND", b""),
        ]
    )


PICTURES = {
    "jpeg": encoded("JPEG"),
    "progressive": encoded("JPEG", progressive=True),
    "grey jpeg": encoded("JPEG", mode="L"),
    "cmyk jpeg": encoded("JPEG", mode="CMYK"),
    "png": encoded("PNG"),
    "palette": encoded("PNG", mode="P"),
    "gif": encoded("GIF", mode="P"),
    "bmp": encoded("BMP"),
    "lossy webp": encoded("WEBP"),
    "lossless webp": encoded("WEBP", lossless=True),
    "extended webp": encoded("WEBP", exif=b"Exif\x00\x00II*\x00"),
}


def animation(**options):
    """A GIF of two frames, the first one red."""
    frames = [Image.new("RGB", (9, 7), color) for color in ("red", "blue")]
    file = io.BytesIO()
    frames[0].save(
        file, "GIF", save_all=True, append_images=frames[1:], **options
    )
    return file.getvalue()


def gif_bomb(height, width):
    """A GIF whose frame is larger than its screen, which its header tells."""
    frame = struct.pack("<cHHHH", b",", 0, 0, WIDTH, HEIGHT)
    larger = struct.pack("<cHHHH", b",", 0, 0, width, height)
    gif = PICTURES["gif"]
    assert gif.count(frame) == 1
    return gif.replace(frame, larger)


def png_with_a_chunk_before():
    """A PNG which libpng reads, with a size of 1 x 1 where IHDR should be."""
    png, magic = PICTURES["png"], 8
    size = struct.pack(">II", 1, 1)
    return png[:magic] + chunk(b"abCd", size) + png[magic:]


def bare_webp(name):
    """A WebP which libwebp reads, its pixels without a chunk around them."""
    pixels = PICTURES[name][20:]
    return b"RIFF" + struct.pack("<I", 4 + len(pixels)) + b"WEBP" + pixels


# What a decoder would read, but whose size is not where it should be.
SIZELESS = {
    "png with a chunk before": png_with_a_chunk_before(),
    "bare lossy webp": bare_webp("lossy webp"),
    "bare lossless webp": bare_webp("lossless webp"),
}
# What is an image, and what has to be refused.
GOOD = PICTURES | {
    "one pixel": encoded("PNG", size=(1, 1)),
    "animation": animation(),
}
BAD = {
    "empty": b"",
    "text": b"text, and no image",
    "header alone": b"\x89PNG",
    "truncated png": PICTURES["png"][:60],
    "truncated jpeg": PICTURES["jpeg"][:200],
    "bomb": bomb(20_000, 20_000),
    "gif bomb": gif_bomb(20_000, 20_000),
    **SIZELESS,
}
