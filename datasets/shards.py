"""Shards that cannot be read: found, named, and refused or left out.

TensorFlow's own error at a damaged TFRecord file says neither which file it
is nor what to do, and a file cut within a length it takes for whole. Such a
file is a row of records, each of

    length   8 bytes, little endian
    crc      4 bytes, masked CRC-32C of the length
    data     `length` bytes
    crc      4 bytes, masked CRC-32C of the data

(tensorflow/core/lib/io/record_writer.h). Walking over the lengths is cheap
and finds what a broken copy leaves; only reading all data finds a bit that a
disk has lost. Nothing here knows what is in a record.
"""

import concurrent.futures
import contextlib
import dataclasses
import functools
import pathlib
import struct
from collections.abc import Sequence

import tensorflow as tf

from ssd_tf.command import UserError, say
from ssd_tf.datasets import catalog

# What --unreadable_shards may be.
POLICIES = ("fatal", "skip")
_HEADER = struct.Struct("<QI")
_LENGTH_SIZE = 8
_FOOTER_SIZE = 4
_GZIP = b"\x1f\x8b"
# Files read at once: a disk far away answers many as fast as one.
_PARALLEL_FILES = 8


@dataclasses.dataclass(frozen=True)
class BadShard:
    """A file that cannot be read to its end."""

    path: pathlib.Path
    reason: str  # such as "truncated after 17 of 40 images"
    records: int  # readable ones before the damage


def find_bad(
    shards: Sequence[catalog.Shard], deep: bool = True
) -> list[BadShard]:
    """Returns those of the files that are no whole TFRecord files, in order.

    Args:
      shards: from `catalog.list_shards`; an empty file is whole, a shard that
        got no record.
      deep: also reads all data and compares their checksums; else only those
        of the lengths, and no file that has the size that its manifest states.
    """
    return [
        BadShard(shard.path, reason, records)
        for shard, (records, reason) in _examine_all(shards, deep)
        if reason
    ]


def refusal(bad: BadShard) -> UserError:
    """Returns the error that names a bad shard and its remedies."""
    return UserError(
        f"{bad.path}: {bad.reason}; restore the file, convert the data again "
        "or leave the file out by --unreadable_shards=skip"
    )


def usable(
    shards: Sequence[catalog.Shard], unreadable_shards: str = "fatal"
) -> list[catalog.Shard]:
    """Returns the shards to read, with the number of images in each.

    Files are looked at again only when they have changed: all readers of a
    split get the same shards, and what is left out is said once.

    Args:
      shards: from `catalog.list_shards`.
      unreadable_shards: "fatal" refuses a bad shard, and trusts a file that
        has the size that its manifest states. "skip" reads all data once and
        leaves out bad shards as a whole.

    Raises:
      UserError: a bad shard, or with "skip" no good one.
      ValueError: another policy.
    """
    if unreadable_shards not in POLICIES:
        raise ValueError(
            f"unreadable_shards must be one of {', '.join(POLICIES)}; "
            f"received {unreadable_shards!r}"
        )
    stamps = tuple(_stamp(shard.path) for shard in shards)
    return list(_usable(tuple(shards), stamps, unreadable_shards))


def _stamp(path):
    """Returns size and time of a file, which change with it, or None."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


@functools.lru_cache(maxsize=16)
def _usable(shards, stamps, unreadable_shards):
    """`usable` of the files as they were at `stamps`."""
    skip = unreadable_shards == "skip"
    kept = []
    for shard, (records, reason) in _examine_all(shards, deep=skip):
        if reason is None:
            kept.append(dataclasses.replace(shard, images=records))
        elif skip:
            say(f"left out: {shard.path} ({reason})")
        else:
            raise refusal(BadShard(shard.path, reason, records))
    if not kept:
        raise UserError(
            f"{shards[0].path.parent}: none of its {len(shards)} shards can "
            "be read; convert the data again"
        )
    return tuple(kept)


def _examine_all(shards, deep):
    """Pairs of a shard and what `_examine` says of it."""
    with concurrent.futures.ThreadPoolExecutor(_PARALLEL_FILES) as pool:
        examine = functools.partial(_examine, deep=deep)
        return list(zip(shards, pool.map(examine, shards), strict=True))


def _examine(shard: catalog.Shard, deep: bool) -> tuple[int, str | None]:
    """Returns the number of readable records, and why there are no more."""
    try:
        size = shard.path.stat().st_size
        if size == shard.size and not deep:
            return shard.images, None
        offsets, reason = _walk(shard.path, size)
    except FileNotFoundError:
        return 0, "is missing"
    except OSError as error:
        return 0, f"cannot be read ({error.strerror})"
    records = len(offsets)
    if deep:
        records = _count_readable(shard.path, records)
        if records < len(offsets):
            reason = f"damaged at byte {offsets[records]}"
    of_all = "" if shard.images is None else f" of {shard.images}"
    count = f"{records}{of_all} images"
    if reason:
        return records, f"{reason} after {count}"
    if shard.size not in (None, size):
        stated = f"{shard.size} that {catalog.MANIFEST} states"
        return records, f"has {size} bytes, not the {stated}, and {count}"
    return records, None


def _walk(path: pathlib.Path, size: int) -> tuple[list[int], str | None]:
    """Finds the whole records, and the damage behind them.

    Reads the lengths alone: a few microseconds a record.
    """
    offsets, offset = [], 0
    with path.open("rb") as file:
        while offset < size:
            file.seek(offset)
            header = file.read(_HEADER.size)
            if len(header) < _HEADER.size:
                return offsets, "truncated"
            length, crc = _HEADER.unpack(header)
            if crc != _masked_crc(header[:_LENGTH_SIZE]):
                if not offset and header.startswith(_GZIP):
                    return [], "compressed by gzip (gunzip it), unreadable"
                return offsets, f"damaged at byte {offset}"
            following = offset + _HEADER.size + length + _FOOTER_SIZE
            if following > size:
                return offsets, "truncated"
            offsets.append(offset)
            offset = following
    return offsets, None


def _count_readable(path: pathlib.Path, records: int) -> int:
    """Counts the whole ones among the first `records` records."""
    readable = 0
    with contextlib.suppress(tf.errors.OpError):
        for _ in tf.data.TFRecordDataset(str(path)).take(records):
            readable += 1
    return readable


def _masked_crc(data: bytes) -> int:
    """Returns CRC-32C (RFC 3720, appendix B.4), masked as TFRecord files have
    it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ _CRC_TABLE[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    rotated = (crc >> 15) | (crc << 17)
    return (rotated + 0xA282EAD8) & 0xFFFFFFFF


def _crc_of_byte(byte: int) -> int:
    for _ in range(8):
        # The Castagnoli polynomial, lowest bit first.
        byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
    return byte


_CRC_TABLE = tuple(map(_crc_of_byte, range(256)))
