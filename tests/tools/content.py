# SPDX-License-Identifier: LGPL-2.1-or-later
"""Digests of what disk images hold, which is mostly nothing."""
import hashlib
import os

# Files of that size are mostly holes.
SPARSE = 8 << 20
ZEROS = bytes(1 << 16)


def data_of(file):
    """The blocks of a file that are not zero: (offset, data), whether zeros are holes or not."""
    size = os.fstat(file.fileno()).st_size
    at = 0
    while at < size:
        try:
            at = max(at, os.lseek(file.fileno(), at, os.SEEK_DATA) // len(ZEROS) * len(ZEROS))
        except OSError: # nothing but a hole
            return
        data = os.pread(file.fileno(), len(ZEROS), at)
        if data != ZEROS[:len(data)]:
            yield at, data
        at += len(ZEROS)


KNOWN_SHA256 = {}


def sha256(path):
    """Of a file's content; what has the same data in the same places is not reckoned twice."""
    with open(path, 'rb') as file:
        size = os.fstat(file.fileno()).st_size
        if size < SPARSE:
            return hashlib.file_digest(file, 'sha256').hexdigest()
        runs = hashlib.sha256()
        for at, data in data_of(file):
            runs.update(at.to_bytes(8, 'big') + data)
        key = (size, runs.digest())
        if key not in KNOWN_SHA256:
            file.seek(0)
            KNOWN_SHA256[key] = hashlib.file_digest(file, 'sha256').hexdigest()
        return KNOWN_SHA256[key]
